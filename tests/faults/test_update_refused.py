"""Releases that must not run here are refused, each with its own code, and what runs goes on."""

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tinysight_contract.updates import Code, UpdateState
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.selftest import Limits, Verdict
from tinysight_edge.update.signed import Requires
from tinysight_edge.update.sources import FolderSource


def _replayed(shops: Any, device: Any) -> None:
    """The device has seen what is newer than what it is shown now."""
    before = {path: path.read_bytes() for path in (device.shop.folder / "metadata").iterdir()}
    device.shop.publish()
    assert Installer(device.store).install(FolderSource(device.shop.folder), shops.target_of(1)).code is None
    for path in (device.shop.folder / "metadata").iterdir():
        path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def _stranger(shops: Any, device: Any) -> None:
    """Someone else's key signs for the project."""
    device.shop.strange = shops.Shop(device.root.parent / "strange").signers[shops.PROJECT]
    device.shop.publish()


def _elsewhere(shops: Any, device: Any) -> None:
    """Another repository lies at the same place, with the same release."""
    shutil.rmtree(device.shop.folder)
    shops.Shop(device.shop.folder).add(device.make(2), 2)


def _expired(_: Any, device: Any) -> None:
    device.shop.days = -1
    device.shop.publish()


def _huge(shops: Any, device: Any) -> None:
    device.shop.targets[shops.target_of(2)].length = 1 << 30
    device.shop.publish()


def _linked(shops: Any, device: Any) -> None:
    payload = device.shop.payload(shops.target_of(2))
    payload.rename(payload.with_suffix(".moved"))
    payload.symlink_to(payload.with_suffix(".moved"))


def _million(_: Any, device: Any) -> None:
    """The project's list of targets has a million entries."""
    path = device.shop.folder / "metadata" / f"{device.shop.version}.pets.json"
    path.write_bytes(b'{"signed": {"targets": {' + b",".join(b'"pets/%07d":{}' % each for each in range(1_000_000)))


def _schema(data: bytes) -> bytes:
    """As a later program makes it; the digests are right."""
    assert data.count(b'"schema": "1.') == 1, "it stands in the manifest once"
    return data.replace(b'"schema": "1.', b'"schema": "9.')


REFUSED: Final[dict[str, tuple[Code, dict[str, Any], Callable[[Any, Any], None] | None]]] = {
    "one flipped byte": (Code.TAMPERED, {"flip": True}, None),
    "signed by a stranger": (Code.UNSIGNED, {}, _stranger),
    "another repository": (Code.UNSIGNED, {}, _elsewhere),
    "an older release": (Code.TOO_OLD, {"release": 0}, None),
    "for another processor": (Code.HARDWARE, {"requires": Requires(arch=["mips"])}, None),
    "for more memory": (Code.HARDWARE, {"requires": Requires(min_memory_mib=1 << 30)}, None),
    "for an accelerator": (Code.HARDWARE, {"requires": Requires(accelerator="other")}, None),
    "for a newer TinySight": (Code.RUNTIME, {"requires": Requires(min_tinysight="99.0.0")}, None),
    "too large": (Code.TOO_LARGE, {}, _huge),
    "a schema that is not known": (Code.SCHEMA, {"data": lambda _, good: _schema(good)}, None),
    "no bundle": (Code.MALFORMED, {"data": lambda *_: b"nothing of it"}, None),
    "names that leave their folder": (
        Code.MALFORMED, {"data": lambda shops, _: shops.tar_of([("../../state.json", b"{}")])}, None
    ),
    "links": (Code.MALFORMED, {"data": lambda shops, _: shops.tar_of([("manifest.json", b"")], link=True)}, None),
    "too many members": (
        Code.MALFORMED, {"data": lambda shops, _: shops.tar_of((f"{each}", b"") for each in range(5000))}, None
    ),
    "signed as another": (Code.MALFORMED, {"version": "9.9.9"}, None),
    "links in the repository": (Code.NOT_FOUND, {}, _linked),
    "a million entries in the repository": (Code.TOO_LARGE, {}, _million),
    "out of date": (Code.EXPIRED, {}, _expired),
    "replayed": (Code.REPLAYED, {}, _replayed),
}  # fmt: skip


def test_what_must_not_be_installed_is_refused_with_its_own_code_and_what_runs_goes_on(
    shops: Any, first_field: Any, forked: Any, tell: Any, tmp_path: Path
) -> None:
    told = {}
    for number, (name, (code, how, spoil)) in enumerate(REFUSED.items()):
        device = first_field.copied(tmp_path / str(number))
        release, requires = how.get("release", 2), how.get("requires", Requires())
        good = device.make(release)
        data = how["data"](shops, good) if "data" in how else good
        content = data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:] if "flip" in how else None
        said = {key: how[key] for key in ("version",) if key in how}
        device.shop.add(data, release, requires=requires, content=content, **said)
        if spoil is not None:
            spoil(shops, device)
        answer = forked(*device.command(release))
        assert (answer.status, answer.code) == (1, code.value), (name, answer)
        newest = device.store.state().newest
        assert newest is not None, name
        assert newest.code is code, name
        assert len(newest.reason) > 20, name
        device.check_runs(1)
        told[name] = code.value
    said_all = ", ".join(f"{name} `{code}`" for name, code in told.items())
    tell("a release that must not be installed", published=f"`rejected` or `failed` with its code: {said_all}")


def test_the_number_that_was_signed_counts_and_not_the_one_that_the_bundle_was_packed_with(
    shops: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = device.make(2)
    assert data.count(b'"release": 2') == 1, "it stands in the manifest once"
    device.shop.add(data.replace(b'"release": 2', b'"release": 9'), 2)
    monkeypatch.setattr("tinysight_edge.update.selftest.run_selftest", lambda *_, **__: Verdict())
    told = Installer(device.store).install(FolderSource(device.shop.folder), shops.target_of(2))
    assert told.code is None
    assert told.bundle is not None
    assert told.bundle.release == 2


def test_a_workstation_leaves_it_to_the_device_whether_a_release_fits(
    shops: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.shop.add(device.make(2), 2, requires=Requires(arch=["mips"]))
    monkeypatch.setattr("tinysight_edge.update.selftest.run_selftest", lambda *_, **__: Verdict())
    installer = Installer(device.store)
    told = installer.install(FolderSource(device.shop.folder), shops.target_of(2), here=False)
    assert told.state is UpdateState.VERIFIED
    tested = installer.test()
    assert tested is not None
    assert (tested.state, tested.code) == (UpdateState.REJECTED, Code.HARDWARE)
    state = device.store.state()
    assert (state.candidate, state.needs, state.bad) == (None, None, [])
    device.check_runs(1)


def test_a_path_that_leaves_the_repository_is_no_release(device: Any, forked: Any) -> None:
    assert forked("store", "install", "../../etc/passwd", *device.command(1)[3:]).code == Code.MALFORMED.value
    device.check_runs(1)


BAD: Final[dict[str, tuple[Code, str, dict[str, Any], dict[str, Any]]]] = {
    "crashes": (Code.CRASHED, "crashes", {}, {}),
    "hangs": (Code.HUNG, "hangs", {"golden_input": b"\xff"}, {"time_s": 2}),
    "eats memory": (Code.MEMORY, "greedy", {}, {"memory_mib": 128}),
    "answers wrong": (Code.WRONG, "", {"golden_int8_heatmap": b"\x7f"}, {}),
    "is slow": (Code.SLOW, "slow", {}, {"max_ms": 0.5}),
}
"""By what a bundle does: the code, of whose troubles it is made, with what in it, and what it may take."""


@pytest.mark.parametrize("name", BAD)
def test_a_bundle_that_does_not_work_here_fails_its_self_test_and_is_not_taken_again_unless_asked_for(
    name: str, shops: Any, device: Any, troubles: Path, forked: Any, tell: Any
) -> None:
    code, trouble, content, limits = BAD[name]
    data = shops.repacked(troubles / f"{trouble}.bundle", 2, **content) if trouble else device.make(2, **content)
    device.shop.add(data, 2)
    short = partial(Limits, **{"time_s": 60, **limits})
    begun_s = time.monotonic()
    said = forked(*device.command(2), selftest__Limits=short)
    found_s = time.monotonic() - begun_s
    assert (said.status, said.code) == (1, code.value), said
    assert [line["state"] for line in said.lines][-2:] == ["selftest", "failed"]
    device.check_runs(1)
    again = forked(*device.command(2))
    assert (again.status, again.code) == (1, Code.FAILED_BEFORE.value)
    device.check_runs(1)
    wanted = forked(*device.command(2, "--again"), selftest__run_selftest=lambda *_, **__: Verdict())
    assert (wanted.status, wanted.lines[-1]["state"]) == (0, "trial")
    assert device.store.boot().manifest.release == 1
    fault = f"a new bundle {name}"
    assert fault in {
        "a new bundle crashes", "a new bundle hangs", "a new bundle eats memory", "a new bundle answers wrong",
        "a new bundle is slow",
    }  # fmt: skip
    tell(fault, found_s=found_s, published=f"`failed`, code `{code.value}`; asked for again `failed-before`")


IN_2040_S = 70 * 365.25 * 86_400


def test_a_clock_in_2040_stops_installing_alone_and_one_at_1970_nothing(
    device: Any, real: Any, faketime: Path, tell: Any
) -> None:
    device.shop.add(device.make(2), 2)

    def at(time_s: float) -> dict[str, str]:
        told = f"@{datetime.fromtimestamp(time_s):%Y-%m-%d %H:%M:%S}"  # noqa: DTZ006 -- libfaketime takes local times
        shifted = {"FAKETIME": told, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return {"LD_PRELOAD": str(faketime), **shifted}

    late = real(*device.command(2), env=at(IN_2040_S))
    assert (late.status, late.code) == (1, Code.EXPIRED.value), late
    assert "set this device's clock" in late.lines[-1]["reason"]
    device.check_runs(1)
    assert real("store", "verify", "--store", str(device.root), "--json", env=at(IN_2040_S)).lines == [{"active": True}]
    # As of a board that counts from 0 when it is switched on. For libfaketime no other time of 1970 would do: it takes
    # it from the end of each sleep, which is in seconds since then, and would sleep for hours or not at all.
    early = real(*device.command(2), env=at(time.clock_gettime(time.CLOCK_MONOTONIC)))
    assert (early.status, early.lines[-1]["state"]) == (0, "trial"), early
    assert device.store.boot().manifest.release == 1
    tell("an update with the clock in 2040", published="`rejected`, code `expired`; what runs goes on")
    tell("an update with the clock at 1970", published="it goes its way: the time that is certainly past counts")
