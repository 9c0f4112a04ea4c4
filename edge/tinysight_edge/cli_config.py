"""``tinysight config``: check ``agent.toml``, show what holds, begin one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tinysight_edge.config.file import Checked
    from tinysight_edge.config.types import AgentConfig

__all__ = ["config_app"]

config_app = typer.Typer(no_args_is_help=True)

START: Final = """\
# What this agent is told to do. All keys: docs/agent.md of TinySight. `tinysight config check {name}` reads it.
site = "my-site"      # 1 to 63 of a-z, 0-9 and -
device = "camera-1"   # unique within the site
state = "state"       # a folder that survives restarts; relative to this file

[broker]
url = "mqtt://127.0.0.1:1883"   # mqtts:// for TLS
# username = "camera-1"
# password_file = "/etc/tinysight/broker.password"

[model]
bundle = "my-model.bundle"      # or store = "/var/lib/tinysight/store"

[cameras.cam0]
source = "0"                    # or rtsp://host/path, a file, synthetic:belt
# username = "viewer"
# password_env = "CAM0_PASSWORD"
# privacy = [[[0.0, 0.0], [0.2, 0.0], [0.2, 0.2], [0.0, 0.2]]]   # blacked before anything sees it

# [cameras.cam0.zones.door]
# polygon = [[0.3, 0.4], [0.9, 0.4], [0.9, 1.0], [0.3, 1.0]]

# [rules.stays]                 # without any rule everything becomes an event
# zones = ["door"]
# min_dwell = "10s"

[snapshots]                     # the best picture of each event
keep = "512MiB"
"""

File = Annotated[Path, typer.Argument(help="The agent's file.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]


@config_app.callback()
def _config() -> None:
    """The agent's file: check it, show what holds, begin one."""


@config_app.command("check")
def check(file: File, *, as_json: AsJson = False) -> None:
    """Say all that is wrong with a file, one line each, labels that the model does not know included; status 2 then."""
    import sys

    import msgspec

    from tinysight_contract.errors import TinySightError
    from tinysight_edge.config.file import check_config
    from tinysight_edge.console import finish

    checked = check_config(file, environ=os.environ)
    if checked.config is not None:
        try:
            checked = check_config(file, environ=os.environ, labels=_labels(checked.config))
        except TinySightError as error:
            _say("error", f"{file}: model: {error}")
            raise typer.Exit(2) from error
    for finding in checked.findings:
        _say(finding.level, f"{checked.say(finding)} {finding.mend}")
    if as_json:
        found = [
            {"line": each.line, "key": each.key, "level": each.level, "what": each.what, "mend": each.mend}
            for each in checked.findings
        ]
        told = {"file": str(file), "ok": checked.config is not None, "findings": found}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    elif checked.config is not None:
        finish(_summary(checked), as_json=False)
    if checked.config is None:
        raise typer.Exit(2)


@config_app.command("show")
def show(file: File, *, as_json: AsJson = False) -> None:
    """Print every value that holds, defaults included, as lines that are TOML again. Secrets are not shown."""
    import sys

    import msgspec

    from tinysight_edge.config.file import read_config

    config = read_config(file, environ=os.environ)
    shown = dict(_values(config))
    if as_json:
        sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{key} = {value}\n" for key, value in shown.items()))


@config_app.command("init")
def init(file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("agent.toml")) -> None:
    """Write a file to start from; one that is there stays as it is."""
    from tinysight_contract.errors import ConfigError
    from tinysight_edge.console import console

    try:
        with file.open("x") as out:
            out.write(START.format(name=file.name))
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already.", mend="Name another file.") from error
    console.print(f"{file} is written. Change it, then say `tinysight config check {file}`.", markup=False)


@config_app.command("schema")
def schema_() -> None:
    """Print a JSON Schema of the file, for editors."""
    import sys

    import msgspec

    from tinysight_edge.config.docs import schema

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema()), indent=1).decode() + "\n")


def _say(level: str, text: str) -> None:
    import sys

    sys.stderr.write(f"{level}: {' '.join(text.split())}\n")


def _labels(config: "AgentConfig") -> list[str]:
    """Of the model that would run.

    Raises:
        TinySightError: it is not there or damaged.
    """
    from tinysight_edge.cli import open_bundle

    return list(open_bundle(config.model).manifest.labels)


def _summary(checked: "Checked") -> "Mapping[str, str]":
    """What would run, a line each."""
    from tinysight_edge.config.words import redacted

    config = checked.must()
    told = {
        "agent": f"{config.site}/{config.device}",
        "broker": config.broker.url,
        "model": str(config.model.bundle or config.model.store),
    }
    for id_, camera in config.cameras.items():
        told[f"camera {id_}"] = f"{redacted(camera.source)}; zones: {len(camera.zones)}, lines: {len(camera.lines)}"
    told["rules"] = ", ".join(config.rules) or "none: everything becomes an event"
    return told


def _values(part: object, key: str = "") -> "Iterator[tuple[str, str]]":
    """Every value below a part, by its dotted key. A password is where it comes from, and three stars."""
    from msgspec import Struct

    from tinysight_edge.config.words import written

    items = part.items() if isinstance(part, dict) else ((n, getattr(part, n)) for n in part.__struct_fields__)  # type: ignore[attr-defined] # a Struct
    for name, value in items:
        path = f"{key}.{name}".removeprefix(".")
        if isinstance(value, Struct | dict):
            yield from _values(value, path)
        elif value is not None:
            yield path, written(value)
