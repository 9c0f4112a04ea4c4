"""What the agent is put together from, made to fit a configuration. Nothing here is started."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tinysight_contract import topics as t
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import State, Status, utc_now
from tinysight_contract.topics import ID
from tinysight_edge.config.checks import unknown_labels
from tinysight_edge.config.file import address_of
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.governor import Governor
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.machine import Machine
from tinysight_edge.health.meter import Meter
from tinysight_edge.health.model_metrics import ModelMeter
from tinysight_edge.neighbours.neighbours import Neighbours
from tinysight_edge.orders.actions import Hands
from tinysight_edge.orders.desk import Desk
from tinysight_edge.orders.ledger import Ledger
from tinysight_edge.outbox import Outbox
from tinysight_edge.pictures.pictures import About, Pictures
from tinysight_edge.publisher import Publisher
from tinysight_edge.update.report import Report
from tinysight_edge.update.shadow import Shadow
from tinysight_edge.update.swap import Swapper
from tinysight_edge.update.trial import Pulse
from tinysight_edge.view import Seer

if TYPE_CHECKING:
    from tinysight_edge.update.updater import Updater

__all__ = [
    "about_pictures",
    "cameras_gone",
    "foreign_labels",
    "make_caretaker",
    "make_desk",
    "make_model_meter",
    "make_pictures",
    "make_publisher",
    "make_updater",
]

MOST_SAID: Final = 3
MAX_GONE: Final = 64
NOT_TO_SEE: Final = {"rate", "damaged", "governed", "reloaded"}
"""Why a picture that came is not to be seen, whatever the model does."""


def cameras_gone(state: Path, ids: Iterable[str]) -> list[str]:
    """Cameras that were configured once, by whatever start, and are no more: the last 64; remembers all of them.

    They are named at each start, since an earlier one may have ended before the broker heard of it.
    """
    path, now = state / "cameras.txt", set(ids)
    try:
        before = read_capped(path, 64 * 1024).decode().split()
    except (OSError, UnicodeDecodeError):
        before = []
    gone = [id_ for id_ in dict.fromkeys(before) if id_ not in now and ID.fullmatch(id_)][-MAX_GONE:]
    wanted = [*gone, *sorted(now)]  # the longest gone first
    if before != wanted:
        with suppress(OSError):  # what cannot be written is cleared again, or once less
            replace_file(path, "\n".join(wanted).encode())
    return gone


def foreign_labels(config: AgentConfig, labels: Collection[str]) -> str | None:
    """Which labels of the configuration the model does not know, as after another model was installed; or None."""
    found = [f"{each.key}: {each.what}" for each in unknown_labels(config, labels)]
    more = [f"{len(found) - MOST_SAID} more."] if len(found) > MOST_SAID else []
    return " ".join([*found[:MOST_SAID], *more]) or None


def make_caretaker(config: AgentConfig, boot_id: str, meter: Meter, governor: Governor) -> Caretaker:
    """Who looks after the device."""
    return Caretaker(
        config.site,
        config.device,
        boot_id,
        machine=Machine(config.state),
        meter=meter,
        governor=governor,
        every_s=config.health.every,
        max_drift=config.health.max_drift,
    )


def make_model_meter(seer: Seer) -> ModelMeter:
    """Who counts what a model finds, from now on."""
    return ModelMeter(seer.bundle.manifest, seer.ref, seer.threshold, seer.boot_id)


def make_publisher(
    config: AgentConfig,
    boot_id: str,
    environ: Mapping[str, str],
    *,
    outbox: Outbox,
    caretaker: Caretaker,
    meter: Meter,
    desk: Desk,
    neighbours: Neighbours,
) -> Publisher:
    """Who tells the broker, and hears from it."""
    here = t.StatusTopic(config.site, config.device)
    online = Status(state=State.ONLINE, boot_id=boot_id, reason="started", at=utc_now())
    offline = Status(state=State.OFFLINE, boot_id=boot_id, reason="connection lost", at=utc_now())
    return Publisher(
        partial(address_of, config.broker, environ),
        outbox,
        client_id=f"tinysight_{config.site}_{config.device}",  # ids hold no "_", so no two devices share one
        online=(here, online),
        offline=(here, offline),
        every_s=config.health.every,
        report=caretaker.report,
        keep_alive_s=config.broker.keep_alive,
        published=meter.published,
        listen=desk.filters,
        hear=desk.hear,
        also=neighbours.also,
    )


def make_desk(config: AgentConfig, boot_id: str, bundle: str, *, hands: Hands, caretaker: Caretaker) -> Desk:
    """Who takes orders; ``bundle`` is the digest of what is active."""
    return Desk(
        config.site,
        config.device,
        boot_id,
        bundle=bundle,
        hands=hands,
        ledger=Ledger(config.state / "commands.json"),
        clock_synced=lambda: caretaker.clock_synced,
    )


def make_updater(
    store: Path,
    report: Report,
    *,
    config: Callable[[], AgentConfig],
    swapper: Swapper,
    pulse: Callable[[], Pulse],
    shadow: Callable[[Shadow | None], None],
    meter: Meter,
    caretaker: Caretaker,
) -> "Updater":
    """Who takes in new bundles, tries them and follows the store."""

    def came() -> dict[str, int]:
        totals = meter.totals()
        came = Counter(totals.frames)
        for (camera, cause), count in totals.dropped.items():
            if cause in NOT_TO_SEE:
                came[camera] -= count
        return dict(came)

    from tinysight_edge.store import Store  # noqa: PLC0415 -- not before frames flow
    from tinysight_edge.update.body import Body  # noqa: PLC0415 -- see above
    from tinysight_edge.update.updater import Updater  # noqa: PLC0415 -- see above

    body = Body(
        config=config,
        swapper=swapper,
        pulse=pulse,
        came=came,
        shadow=shadow,
        wish=report.wish,
        told=report.told,
        alert=report.alert,
        synced=lambda: caretaker.clock_synced,
    )
    return Updater(Store(store), body)


def make_pictures(
    config: AgentConfig, seer: Seer, send: Callable[[str, str, bytes], None] | None = None
) -> Pictures | None:
    """Who keeps pictures; None when none are wanted. ``send`` takes those that are published."""
    if config.snapshots is None and config.examples is None:
        return None
    about = about_pictures(config, seer)
    return Pictures(config.state, about, snapshots=config.snapshots, examples=config.examples, send=send)


def about_pictures(config: AgentConfig, seer: Seer) -> About:
    """What goes into every picture."""
    manifest = seer.bundle.manifest
    return About(
        site=config.site,
        device=config.device,
        model=seer.ref,
        task=manifest.task,
        labels=tuple(manifest.labels),
        threshold=seer.threshold,
    )
