"""A disk that is full and a clock that jumps: neither stops seeing or telling.

libfiu makes each ``write`` of the running agent fail as on a full disk, libfaketime moves the clock that it reads.
"""

import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.messages import Event, EventType

FIU = Path("/usr/lib/fiu")
NO_SPACE = 28
WRITES = ("posix/io/rw/write", "posix/io/rw/pwrite", "posix/io/rw/writev", "posix/io/rw/ftruncate")


def test_a_full_disk_costs_pictures_and_no_event(
    ear: Any, make_device: Any, eventually: Any, tell: Any, tmp_path: Path
) -> None:
    if shutil.which("fiu-ctrl") is None:
        pytest.skip("apt-get install fiu-utils")
    pipe = tmp_path / "fiu"
    env = {
        "LD_PRELOAD": f"{FIU}/fiu_run_preload.so {FIU}/fiu_posix_preload.so",
        "FIU_CTRL_FIFO": str(pipe),
        "OPENBLAS_NUM_THREADS": "1",  # libfiu and a library that starts threads while it is loaded block each other
    }
    device = make_device(gate='source = "synthetic:belt"', more="[snapshots]", env=env)

    def disk(*, full: bool) -> None:
        how, info = ("enable", f",failinfo={NO_SPACE}") if full else ("disable", "")
        commands = [word for name in WRITES for word in ("-c", f"{how} name={name}{info}")]
        subprocess.run(["fiu-ctrl", "-f", str(pipe), *commands, str(device.pid)], check=True, timeout=20)

    ear.event(lambda event: event.type is EventType.END)
    pictures = tmp_path / "state" / "snapshots"
    full_s = time.monotonic()
    disk(full=True)
    no_pictures_s = ear.alert("pictures-failing", since_s=full_s)
    no_outbox_s = ear.alert("outbox-failing", since_s=full_s)
    while_s = time.monotonic()
    before = len(list(pictures.rglob("*.jpg")))
    time.sleep(4.0)
    eventually(lambda: len(ear.of(Event, since_s=while_s)) > 3)
    assert len(list(pictures.rglob("*.jpg"))) == before
    free_s = time.monotonic()
    disk(full=False)
    meanwhile = [event for _, event in ear.of(Event, since_s=while_s)]
    assert len(meanwhile) > 3
    assert not any(event.replayed for event in meanwhile)
    outbox_well_s = ear.alert("outbox-failing", stands=False, since_s=free_s)
    pictures_well_s = ear.alert("pictures-failing", stands=False, since_s=free_s)
    assert len(list(pictures.rglob("*.jpg"))) > before
    ear.check_all_came()
    assert device.ends == []
    tell(
        "disk full under snapshots",
        found_s=no_pictures_s - full_s,
        well_s=pictures_well_s - free_s,
        published="alert `pictures-failing`, cleared 10 s after its cause; events go on",
    )
    tell(
        "disk full under the outbox",
        found_s=no_outbox_s - full_s,
        well_s=outbox_well_s - free_s,
        published=f"alert `outbox-failing`, cleared likewise; {len(meanwhile)} events in 4 s from memory, 0 missing",
    )


@pytest.mark.parametrize(
    ("fault", "jumped"),
    [
        pytest.param("clock jumps an hour ahead", timedelta(hours=1), id="an hour"),
        pytest.param("clock jumps to 1970", datetime(1970, 1, 1, 0, 1, tzinfo=UTC) - datetime.now(UTC), id="1970"),
        pytest.param("clock jumps an hour back while the broker is away", timedelta(hours=-1), id="an hour back, away"),
    ],
)
def test_a_clock_that_jumps_changes_the_time_that_is_told_and_nothing_else(
    mosquitto: Any,
    make_proxy: Any,
    world: Any,
    ear: Any,
    make_device: Any,
    tell: Any,
    faketime: Path,
    tmp_path: Path,
    fault: str,
    jumped: timedelta,
) -> None:
    away, network = "away" in fault, make_proxy(mosquitto.port)
    mjpeg = world.server
    mjpeg.start()  # a drawn belt would sleep, and libfaketime 0.9.10 breaks clock_nanosleep(2)
    shift = tmp_path / "shift"
    shift.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(faketime),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    device = make_device(gate=f'source = "{mjpeg.url}"', broker=f'url = "{network.url}"', more="[snapshots]", env=env)
    ear.event(lambda event: event.type is EventType.END)
    time.sleep(2.0)
    begun_s = time.monotonic()
    if away:
        network.swallows = True
        network.forget_client()
        time.sleep(1.5)
    shift.with_suffix(".new").write_text(f"{jumped.total_seconds():+.0f}\n")
    shift.with_suffix(".new").rename(shift)
    if away:
        time.sleep(1.5)
        network.heal()
    told_s, event = ear.event(lambda event: abs(event.seen_at - datetime.now(UTC) - jumped) < timedelta(seconds=30))
    ear.event(lambda each: each.type is EventType.END and each.started_at > event.seen_at, since_s=told_s)
    time.sleep(2.0)
    ear.check_all_came()
    events = [each for _, each in ear.of(Event, since_s=begun_s)]
    assert {each.boot_id for each in events} == {event.boot_id}
    assert all(each.track.age_s < 60 and each.latency_ms.total < 30_000 for each in events), (
        "lengths are not told by it"
    )
    if away:
        waited = [each for each in events if each.replayed]
        assert [each.seq for each in waited] == sorted(each.seq for each in waited), "in the order of `seq`"
        assert waited[0].seen_at > waited[-1].seen_at, "though its times go back"
    else:
        assert ear.told(since_s=begun_s) == "", "the camera stays online"
    assert device.ends == []
    said = f"{len(events)} events in {time.monotonic() - begun_s:.0f} s, in order by `seq`, their times jump; 0 missing"
    tell(fault, well_s=told_s - begun_s, published=said)
