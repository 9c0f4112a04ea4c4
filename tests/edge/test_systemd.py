"""The unit is linted by systemd itself, and agrees with the code. It is not run here: that needs a booted systemd."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tinysight_edge.watchdog import GIL_S, STALL_S

UNIT = Path(__file__).parents[2] / "edge/systemd/tinysight-agent.service"
OK_AT_MOST = 25  # 2.5 of 10, "OK" in systemd's words


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here, since ``verify`` looks for it."""
    text = UNIT.read_text()
    assert text.count("/opt/tinysight/bin/tinysight ") == 1
    here = tmp_path / UNIT.name
    here.write_text(text.replace("/opt/tinysight/bin/tinysight ", "/bin/true "))
    return here


def test_systemd_finds_nothing_to_complain_about(unit: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_lint_sees_a_misspelt_option(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


def test_the_service_is_exposed_as_little_as_cameras_and_a_network_allow(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={OK_AT_MOST}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-200:]
    assert "OK" in done.stdout.splitlines()[-1]
    assert analyze("security", "--offline=true", "--threshold=10", "--no-pager", unit).returncode != 0, "it measures"


def read() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case
    parser.read(UNIT)
    return parser


def test_the_unit_waits_longer_than_the_agents_own_watchdog_so_that_the_stacks_are_written() -> None:
    service = read()["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert float(service["WatchdogSec"]) > 2 * max(GIL_S, STALL_S)


def test_restarts_are_bounded_and_the_bound_can_be_reached() -> None:
    unit, service = read()["Unit"], read()["Service"]
    burst, interval_s = int(unit["StartLimitBurst"]), int(unit["StartLimitIntervalSec"])
    hangs_at_once_s = STALL_S + float(service["RestartSec"]) + 5
    assert burst >= 5
    assert burst * hangs_at_once_s < interval_s, "an agent that hangs after each start is given up too"
