"""The machine's figures, read from real files laid out as Linux and the Raspberry Pi lay them out."""

from pathlib import Path

import pytest

from tinysight_edge.health.machine import Machine, Reading


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def read(root: Path, files: dict[str, str]) -> Reading:
    return Machine(root, root=lay_out(root, files)).read()


def zone(number: int, kind: str, millidegrees: str) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": kind, f"{folder}/temp": millidegrees}


def cooler(number: int, kind: str, state: str) -> dict[str, str]:
    folder = f"sys/class/thermal/cooling_device{number}"
    return {f"{folder}/type": kind, f"{folder}/cur_state": state}


@pytest.fixture(autouse=True)
def _no_firmware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real ``vcgencmd`` of the machine that runs the tests is not asked."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def have_vcgencmd(root: Path, script: str) -> None:
    program = root / "bin/vcgencmd"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        pytest.param({}, None, id="none"),
        pytest.param(zone(0, "cpu-thermal", "48312"), 48.312, id="raspberry pi"),
        pytest.param(zone(0, "cpu0-thermal", "51000") | zone(1, "cpu1-thermal", "63500"), 63.5, id="the hottest"),
        pytest.param(zone(0, "battery", "99000") | zone(1, "x86_pkg_temp", "41000"), 41.0, id="of the processor"),
        pytest.param(zone(0, "acpitz", "37000"), 37.0, id="any, when none is the processor's"),
        pytest.param(zone(0, "cpu", "-274000") | zone(1, "soc", "255000"), None, id="dead sensors"),
        pytest.param(zone(0, "cpu", "nonsense") | zone(1, "soc", "40000"), 40.0, id="one that cannot be read"),
    ],
)
def test_the_temperature_is_that_of_the_hottest_processor_zone(
    zones: dict[str, str], celsius: float | None, tmp_path: Path
) -> None:
    assert read(tmp_path, zones).temperature_c == celsius


FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
VOLTS = {"sys/class/hwmon/hwmon1/name": "rpi_volt", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1"}


@pytest.mark.parametrize(
    ("files", "slowed"),
    [
        pytest.param({}, None, id="nobody says"),
        pytest.param({FIRMWARE: "0"}, set(), id="well"),
        pytest.param({FIRMWARE: "d0000"}, set(), id="once, not now"),
        pytest.param({FIRMWARE: "50005"}, {"undervoltage"}, id="undervoltage caps"),
        pytest.param({FIRMWARE: "4"}, {"heat"}, id="throttled at the right voltage"),
        pytest.param({FIRMWARE: "8"}, {"heat"}, id="soft limit"),
        pytest.param({FIRMWARE: "f000f"}, {"heat", "undervoltage"}, id="both"),
        pytest.param(cooler(0, "cpufreq-cpu0", "0") | cooler(1, "pwm-fan", "3"), set(), id="a fan is no loss"),
        pytest.param(cooler(0, "cpufreq-cpu0", "2"), {"heat"}, id="the kernel caps"),
        pytest.param(cooler(0, "Processor", "1"), {"heat"}, id="ACPI caps"),
        pytest.param(VOLTS, {"undervoltage"}, id="hwmon"),
    ],
)
def test_what_slows_the_processor_is_told_with_its_cause(
    files: dict[str, str], slowed: set[str] | None, tmp_path: Path
) -> None:
    assert read(tmp_path, files).slowed == (None if slowed is None else frozenset(slowed))


def test_where_there_is_a_vcgencmd_it_is_asked_and_not_each_time(tmp_path: Path) -> None:
    have_vcgencmd(tmp_path, f'echo x >> {tmp_path}/asked; echo "throttled=0x80008"')
    machine = Machine(tmp_path, root=lay_out(tmp_path, {FIRMWARE: "1"}))
    assert machine.read().slowed == frozenset({"heat"}), "not the file, which kernels warn of"
    machine.read()
    assert (tmp_path / "asked").read_text() == "x\n"


def test_a_vcgencmd_that_may_not_talk_to_the_firmware_says_nothing(tmp_path: Path) -> None:
    have_vcgencmd(tmp_path, 'echo "VCHI initialization failed"; exit 255')
    assert Machine(tmp_path, root=tmp_path).read().slowed is None


def test_free_memory_is_what_can_be_had_and_unknown_without_it(tmp_path: Path) -> None:
    assert read(tmp_path, {}).memory_free is None
    text = "MemTotal:        1000000 kB\nMemFree:           10000 kB\nMemAvailable:     250000 kB"
    assert read(tmp_path, {"proc/meminfo": text}).memory_free == 0.25


def test_a_folder_whose_disk_is_gone_has_no_room(tmp_path: Path) -> None:
    assert Machine(tmp_path).read().disk_free_mib > 1
    assert Machine(tmp_path / "gone").read().disk_free_mib == 0.0


def test_this_machine_tells_what_it_has() -> None:
    reading = Machine(Path("/")).read()
    assert reading.memory_mib > 5
    assert reading.memory_free is not None
    assert 0 < reading.memory_free <= 1
    assert reading.clock_synced in {True, False, None}
