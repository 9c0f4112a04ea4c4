"""``tinysight device add``: make a machine that one can log in to a device."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinysight_deploy.places import KeysOption, PassphraseOption, RepoOption
from tinysight_edge.console import console, finish

if TYPE_CHECKING:
    from tinysight_deploy.provisioning.probe import Facts
    from tinysight_deploy.provisioning.types import Provisioned, Step, Wishes
    from tinysight_deploy.remote.ssh import Remote

__all__ = ["add"]

_SIGNS = {"ok": "ok", "changed": "done", "would change": "to do", "skipped": "skipped"}


def add(
    address: Annotated[str, typer.Argument(help="user@host[:port], or ssh://user@host[:port].", show_default=False)],
    *,
    site: Annotated[str, typer.Option(help="Its site in MQTT.", show_default=False)],
    device: Annotated[str, typer.Option(help="Its id in MQTT, unique within the site.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Its name in the inventory; its id unless given.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group that it is in.", show_default=False)] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag, name=value.", show_default=False)] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(help="The folder of `tinysight wheelhouse`.", show_default=False)
    ] = None,
    broker: Annotated[str | None, typer.Option(help="The broker's address, mqtts://host.", show_default=False)] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust for it.", show_default=False)] = None,
    broker_config: Annotated[
        Path | None,
        typer.Option(help="The folder of `tinysight broker config`; it signs for the device.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Its agent.toml; one is made unless given.", show_default=False)
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(help="The release to install: its bundle's file, NAME@VERSION or its target.", show_default=False),
    ] = None,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    inventory: Annotated[
        Path | None, typer.Option(help="devices.toml; among your settings unless given.", show_default=False)
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="The private key to log in with.", show_default=False)] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="What its host key must be: SHA256:…", show_default=False)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another machine with that name or id.")
    ] = False,
    service: Annotated[
        bool, typer.Option("--service", help="Have systemd run it also where the address has a path; as root.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only report; change nothing there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before anything is changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Make a machine a device: its user, programs, root of trust, certificate, configuration and service.

    Whatever is done already stays, so it may be run again at any time, also after a connection was lost halfway.
    """
    from tinysight_contract.topics import check_id
    from tinysight_deploy.devices.inventory import Inventory, inventory_path
    from tinysight_deploy.places import keys_folder, repo_folder
    from tinysight_deploy.provisioning.bundle import flash_of
    from tinysight_deploy.provisioning.provision import provision
    from tinysight_deploy.provisioning.types import Wishes
    from tinysight_deploy.remote.ssh import go
    from tinysight_deploy.remote.targets import SshTarget

    check_id(site, what="site")
    check_id(device, what="device")
    check_id(name or device, what="name")
    for each in group or ():
        check_id(each, what="group")
    wishes = Wishes(
        target=SshTarget.parse(address if address.startswith("ssh://") else f"ssh://{address}"),
        site=site,
        device=device,
        name=name or device,
        repo=repo_folder(repo),
        keys=keys,
        wheelhouse=wheelhouse,
        broker=broker,
        ca=ca,
        broker_config=broker_config,
        config=config,
        groups=tuple(group or ()),
        tags=dict(_tag(each) for each in tag or ()),
        check=check,
        identity=identity,
        fingerprint=fingerprint,
        replace=replace,
        service=service,
    )

    def may(remote: "Remote", facts: "Facts") -> bool:
        return yes or _asked(wishes, remote, facts)

    book, tell = Inventory(inventory_path(inventory)), _tell
    flash = None
    if bundle is not None:
        flash = flash_of(
            wishes, bundle, book, keys=keys_folder(keys, wishes.repo), passphrase=passphrase_file, tell=tell
        )
    done = go(provision(wishes, book, tell=tell, told=_say, may=may, flash=flash))
    finish(_result(wishes, done, as_json=as_json), as_json=as_json)


def _tag(text: str) -> tuple[str, str]:
    from tinysight_contract.errors import ConfigError
    from tinysight_contract.topics import check_id

    name, equals, value = text.partition("=")
    if not equals or not value or len(value) > 200 or not value.isprintable():
        raise ConfigError(f"{text[:80]!r} is no tag.", mend="Write --tag name=value.")
    check_id(name, what="tag")
    return name, value


def _asked(wishes: "Wishes", remote: "Remote", facts: "Facts") -> bool:
    """Show who that is, and ask.

    Raises:
        ConfigError: there is nobody to ask.
    """
    from tinysight_contract.errors import ConfigError
    from tinysight_deploy.remote.targets import plain

    if not sys.stdin.isatty():
        raise ConfigError(
            "Nobody can be asked here whether that device is meant.", mend="Look with --check, then give --yes."
        )
    key = remote.host_key.fingerprint if remote.host_key else "unknown"
    console.print(
        f"{wishes.target}: {plain(facts.model) or facts.machine}, {plain(facts.system)}, host key {key}", markup=False
    )
    return typer.confirm(f"Make it {wishes.site}/{wishes.device}?", err=True)


def _tell(line: str) -> None:
    console.print(line, markup=False)


def _say(step: "Step") -> None:
    console.print(f"{_SIGNS[step.state]:>7}  {step.name}{': ' if step.what else ''}{step.what}", markup=False)


def _result(wishes: "Wishes", done: "Provisioned", *, as_json: bool) -> dict[str, object]:
    """The claim, and beside it for programs each step and finding."""
    import dataclasses

    claim = dataclasses.asdict(done.claim)
    if not as_json:
        claim["agent"] = "runs with what is there" if done.ready else "waits for what is missing"
        return {
            key.replace("_", " "): ", ".join(value) if isinstance(value, tuple) else value
            for key, value in claim.items()
            if value
        }
    return {
        "changed": done.changed and not wishes.check,
        "would_change": done.changed and wishes.check,
        "ready": done.ready,
        "steps": [dataclasses.asdict(each) for each in done.steps],
        "findings": [dataclasses.asdict(each) for each in done.findings],
        "claim": claim,
    }
