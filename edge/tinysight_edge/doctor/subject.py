"""What is to be checked: from a configuration, from flags, or nothing at all.

In: `Options`, plain values that a child process reads again, so that no secret travels on a command line.
Out: a `Subject`. Passwords stay in it; `Subject.secrets` lists them, so that nobody prints one by mistake.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from tinysight_contract.errors import ConfigError
from tinysight_contract.mqtt import Address
from tinysight_edge.config.file import address_of, read_config, secret_of
from tinysight_edge.config.types import BrokerConfig, CameraConfig, FleetConfig, ModelConfig

__all__ = ["Options", "Subject", "subject_of"]


class Options(Struct, frozen=True, kw_only=True):
    """What the user named; what is not named is taken from the configuration, if there is one.

    Attributes:
        config: an agent's configuration.
        sources: camera id to source, instead of the configuration's cameras.
        broker: address, with its password.
        bundle: a bundle file.
        store: a device store.
        state: the folder for what must survive a restart.
        pictures: where cameras' pictures are saved.
        seconds: how long each camera is looked at.
    """

    config: str | None = None
    sources: dict[str, str] = {}
    broker: str | None = None
    bundle: str | None = None
    store: str | None = None
    state: str | None = None
    pictures: str | None = None
    seconds: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is checked.

    Attributes:
        who: site and device, when they are known.
        state: the agent's folder.
        model: what it runs.
        broker: where events go.
        fleet: the fleet's server.
        cameras: by id.
        options: as the user gave them.
    """

    options: Options
    who: tuple[str, str] | None = None
    state: Path | None = None
    model: ModelConfig | None = None
    broker: BrokerConfig | None = None
    fleet: FleetConfig | None = None
    cameras: dict[str, CameraConfig] = field(default_factory=dict)

    def address(self) -> Address | None:
        """Of the broker.

        Raises:
            ConfigError: it is no address, or its password cannot be had.
        """
        return None if self.broker is None else address_of(self.broker, os.environ)

    def secret(self, part: BrokerConfig | CameraConfig) -> str | None:
        """The password of a part.

        Raises:
            ConfigError: it cannot be had.
        """
        return secret_of(part.password_file, part.password_env, os.environ)

    @property
    def parts(self) -> list[BrokerConfig | CameraConfig]:
        """Whatever may have a password."""
        return [*([] if self.broker is None else [self.broker]), *self.cameras.values()]

    def secrets(self) -> list[str]:
        """Every password and token that may be at hand, the longest first."""
        found = set[str | None]()
        for part in self.parts:
            try:
                found.add(self.secret(part))
            except ConfigError:
                continue
        if self.fleet is not None:
            with suppress(ConfigError):
                found.add(secret_of(self.fleet.token_file, None, os.environ))
        for part in self.parts:
            url = part.url if isinstance(part, BrokerConfig) else part.source
            before, at, _ = url.rpartition("@")
            if at:
                found.add(before.rpartition("//")[2].partition(":")[2])
        return sorted(filter(None, found), key=len, reverse=True)


def subject_of(options: Options) -> Subject:
    """Read the configuration, if there is one; flags come before it.

    Raises:
        ConfigError: the configuration is missing or wrong, or a name is no id.
    """
    config = None if options.config is None else read_config(Path(options.config), environ=os.environ)
    cameras = {name: CameraConfig(source=source) for name, source in options.sources.items()}
    model = None
    if options.bundle or options.store:
        bundle, store = (None if each is None else Path(each) for each in (options.bundle, options.store))
        model = ModelConfig(bundle=bundle, store=store)
    return Subject(
        options=options,
        who=None if config is None else (config.site, config.device),
        state=Path(options.state) if options.state else config.state if config else None,
        model=model or (config.model if config else None),
        broker=BrokerConfig(url=options.broker) if options.broker else config.broker if config else None,
        fleet=config.fleet if config else None,
        cameras=cameras or (config.cameras if config else {}),
    )
