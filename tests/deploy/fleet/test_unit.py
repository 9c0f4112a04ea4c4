"""The server's unit is linted by systemd itself, and calls the command as it is. It is not run: that needs systemd."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from tinysight_deploy.fleet.commands.cli_fleet import fleet_app

UNIT = Path(__file__).parents[3] / "deploy/systemd/tinysight-fleet.service"
PROGRAM = "/opt/tinysight/bin/tinysight "
OK_AT_MOST = 20  # 2.0 of 10


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here, since ``verify`` looks for it."""
    text = UNIT.read_text()
    assert text.count(PROGRAM) == 1
    here = tmp_path / UNIT.name
    here.write_text(text.replace(PROGRAM, "/bin/true "))
    return here


def test_systemd_finds_nothing_to_complain_about_but_would(unit: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


def test_the_service_is_exposed_as_little_as_a_network_and_a_database_allow(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={OK_AT_MOST}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-200:]
    assert analyze("security", "--offline=true", "--threshold=5", "--no-pager", unit).returncode != 0, "it measures"


def test_it_calls_a_command_that_there_is_and_no_secret_is_in_its_arguments() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case
    parser.read(UNIT)
    service = parser["Service"]
    assert service["ExecStart"] == f"{PROGRAM}fleet serve $FLEET_OPTIONS"
    command = typer.main.get_command(fleet_app)
    serve = command.get_command(None, "serve")  # type: ignore[attr-defined]  # it is a group
    variables = {each.envvar for each in serve.params if each.envvar}
    assert {"TINYSIGHT_BROKER", "TINYSIGHT_REPO"} <= variables
    assert "--bind" in {name for each in serve.params for name in each.opts}
    assert service["UMask"] == "0077"
