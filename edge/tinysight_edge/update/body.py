"""What the updates' thread needs of the agent, and the two ways in which its work is broken off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinysight_contract.updates import Update
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.update.shadow import Shadow
from tinysight_edge.update.swap import Swapper
from tinysight_edge.update.trial import Pulse
from tinysight_edge.update.wish import Answer, Wish

__all__ = ["Body", "Off", "Otherwise"]


class Off(Exception):  # noqa: N818 -- no error: the agent ends
    """`Updater.stop` was called."""


class Otherwise(Exception):  # noqa: N818 -- no error: somebody has decided otherwise
    """The candidate is none any more, or is not wanted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is needed of the agent. All may be called from any thread.

    Attributes:
        config: what holds now.
        swapper: changes the model.
        pulse: of the model that sees.
        came: by camera, pictures that were handed over to be seen.
        shadow: sets who is offered frames beside; None for nobody.
        wish: what the operator asks for; None when no bundle is.
        told: the bundle that runs, what became of the newest one, what became of the wish.
        alert: what is wrong, or None.
        synced: whether the clock is known to be right.
    """

    config: Callable[[], AgentConfig]
    swapper: Swapper
    pulse: Callable[[], Pulse]
    came: Callable[[], Mapping[str, int]]
    shadow: Callable[[Shadow | None], None]
    wish: Callable[[], Wish | None]
    told: Callable[[str | None, Update | None, Answer | None], None]
    alert: Callable[[str | None], None]
    synced: Callable[[], bool | None]
