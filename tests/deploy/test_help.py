"""Every command and every one below it says what it does, whatever stands in its help."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tinysight_deploy import cli


def paths(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, (*path, name))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command: Any = typer.main.get_command(cli._app(name))
    for path in paths(command.commands[name], (name,)):
        with pytest.raises(SystemExit) as ended:
            command(args=[*path, "--help"], prog_name="tinysight")
        assert ended.value.code == 0
        assert f"tinysight {' '.join(path)} " in " ".join(capsys.readouterr().out.split())
