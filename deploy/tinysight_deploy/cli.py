"""``tinysight``: one command, its parts imported only when they are used.

``tinysight --help`` imports typer and this file alone. A command's module is imported when it is called; if it needs
an extra that is not installed, that is said with the line that installs it. Errors raised on purpose end as one line
on stderr and status 2.
"""

import importlib
import os
import sys
from typing import Final

import typer

__all__ = ["main"]

COMMANDS: Final[dict[str, tuple[str, str, str, str]]] = {
    "demo": ("tinysight_deploy.demo", "demo", "all", "The whole way in one go: data, training, bundle, device, MQTT."),
    "data": ("tinysight_trainer.cli_data", "data_app", "train", "Bring in, collect, label, clean, split pictures."),
    "train": ("tinysight_trainer.cli", "train", "train", "Train a detector or a classifier on your images."),
    "tune": ("tinysight_trainer.cli", "tune", "train", "Search for settings: accuracy against int8 latency and size."),
    "evaluate": ("tinysight_trainer.cli", "evaluate", "train", "Measure a model: where it fails, what it looked at."),
    "lint": ("tinysight_converters.cli_lint", "lint", "convert", "Say what in a model will suffer from int8."),
    "convert": ("tinysight_converters.cli", "convert", "convert", "Quantize a trained model and prove it: the bundle."),
    "bundle": (
        "tinysight_converters.cli_bundle",
        "bundle_app",
        "convert",
        "Bundles: import a foreign model, inspect, diff.",
    ),
    "export": (
        "tinysight_converters.cli",
        "export",
        "onnx",
        "Write a trained model for other runtimes, checked: ONNX.",
    ),
    "keys": (
        "tinysight_deploy.signing.cli",
        "keys_app",
        "deploy",
        "Make, show and replace the keys that sign releases.",
    ),
    "release": (
        "tinysight_deploy.repo.cli_release",
        "release_app",
        "deploy",
        "Sign bundles for devices; list and retire what is signed.",
    ),
    "repo": ("tinysight_deploy.repo.cli_repo", "repo_app", "deploy", "Serve the signed releases, for development."),
    "flash": ("tinysight_deploy.flashing.cli", "flash", "deploy", "Bring a signed release to devices, many at once."),
    "rollout": (
        "tinysight_deploy.fleet.commands.cli_rollout",
        "rollout_app",
        "deploy",
        "Bring a release to many devices in stages, each judged before the next.",
    ),
    "fleet": (
        "tinysight_deploy.fleet.commands.cli_fleet",
        "fleet_app",
        "deploy",
        "Lead rollouts as a service, with an API.",
    ),
    "device": ("tinysight_deploy.devices.cli", "device_app", "deploy", "Devices: list, look at, run commands on them."),
    "audit": (
        "tinysight_deploy.fleet.commands.cli_audit",
        "audit_app",
        "deploy",
        "The log of who did what with the fleet: show, verify.",
    ),
    "wheelhouse": ("tinysight_deploy.wheels.cli", "wheelhouse", "deploy", "Download all that devices run, locked."),
    "store": ("tinysight_edge.cli_store", "store_app", "edge", "A device's bundles: show, verify, install, roll back."),
    "run": ("tinysight_edge.cli", "run", "edge", "Run camera agents: camera → model → events on MQTT."),
    "config": (
        "tinysight_edge.cli_config",
        "config_app",
        "edge",
        "The agent's file: check it, show what holds, begin one.",
    ),
    "doctor": ("tinysight_edge.cli_doctor", "doctor", "edge", "Check this machine, its cameras and its broker."),
    "simulate": ("tinysight_edge.cli_simulate", "simulate", "edge", "Simulate devices, for dashboards and load."),
    "watch": ("tinysight_deploy.watching.watch", "watch", "edge", "Watch devices, cameras and events of a broker."),
    "dashboard": ("tinysight_deploy.dashboard.cli", "dashboard", "deploy", "Serve the dashboard for browsers."),
    "command": ("tinysight_deploy.command", "command", "edge", "Have a device do something once, and hear its answer."),
    "broker": (
        "tinysight_deploy.brokers.cli",
        "broker_app",
        "deploy",
        "Start a development broker, or set up Mosquitto.",
    ),
}
"""Name → module, function or app in it, the extra it needs, one line of help. In the order of a model's way."""


def main() -> None:
    """The entry point of the ``tinysight`` command."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run one command line; the exit status."""
    from tinysight_contract.errors import TinySightError, UpdateError

    wanted = next((word for word in arguments if not word.startswith("-")), None)
    try:
        app = _app(wanted)
        app(args=arguments, prog_name="tinysight", standalone_mode=True)
    except UpdateError as error:
        return _fail(f"{error.code.value}: {error}")
    except TinySightError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if wanted not in COMMANDS or (error.name or "").startswith("tinysight"):
            raise
        extra = COMMANDS[wanted][2]
        return _fail(f"`tinysight {wanted}` needs {error.name}. Install it with `pip install 'tinysight[{extra}]'`.")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; say no more
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}. Check the path, its rights and the free space.")
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


def _app(wanted: str | None) -> typer.Typer:
    """All commands by name and help; only the wanted one is real."""
    app = typer.Typer(
        help="Train your own vision model, run it on small cameras, read what it sees over MQTT.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, (module, attribute, _extra, line) in COMMANDS.items():
        target = getattr(importlib.import_module(module), attribute) if name == wanted else _not_loaded
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, help=line)
        else:
            app.command(name, help=None if name == wanted else line)(target)
    return app


def _say_version(wanted: bool) -> None:
    """Print the version and end; called before a command is asked for."""
    if wanted:
        from tinysight_contract import __version__

        print(f"tinysight {__version__}")
        raise typer.Exit


def _root(
    *,
    version: bool = typer.Option(
        False, "--version", help="Print the version and end.", is_eager=True, callback=_say_version
    ),
) -> None:
    pass


def _not_loaded() -> None:
    """Stands for a command that is listed and not called."""
