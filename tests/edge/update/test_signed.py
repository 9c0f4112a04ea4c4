"""What a project signs is bounded, and a machine that lacks something says what."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract import __version__
from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.signed import Machine, Requires, Signed, lack, parse_signed

SAID = {"name": "belt", "version": "1.2.0", "release": 3, "released_at": "2026-12-01T12:00:00Z"}
PI = Machine(arch="aarch64", memory_mib=431, accelerators=frozenset({"edgetpu"}), tinysight="0.4.0")


@pytest.mark.parametrize(
    ("requires", "code", "why"),
    [
        pytest.param(Requires(), None, "", id="nothing"),
        pytest.param(Requires(arch=["x86_64", "aarch64"]), None, "", id="one of two"),
        pytest.param(Requires(arch=["armv7l"]), Code.HARDWARE, "made for armv7l, this machine is", id="another"),
        pytest.param(Requires(min_memory_mib=431), None, "", id="just enough memory"),
        pytest.param(Requires(min_memory_mib=512), Code.HARDWARE, "512 MiB of memory, this machine has 431", id="less"),
        pytest.param(Requires(accelerator="edgetpu"), None, "", id="the accelerator is there"),
        pytest.param(Requires(accelerator="hailo"), Code.HARDWARE, "accelerator hailo", id="it is not"),
        pytest.param(Requires(min_tinysight="0.4.0"), None, "", id="the same version"),
        pytest.param(Requires(min_tinysight="0.3.99"), None, "", id="newer than needed"),
        pytest.param(Requires(min_tinysight="0.4.0-rc1"), None, "", id="newer than a candidate of itself"),
        pytest.param(Requires(min_tinysight="0.10.0"), Code.RUNTIME, "TinySight 0.10.0, here is 0.4.0", id="older"),
    ],
)  # fmt: skip
def test_what_a_machine_lacks(requires: Requires, code: Code | None, why: str) -> None:
    found = lack(requires, PI)
    if code is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] is code
        assert why in found[1]


def test_a_candidate_comes_before_its_version() -> None:
    candidate = Machine(arch="x", memory_mib=1, tinysight="1.0.0-rc1")
    assert lack(Requires(min_tinysight="1.0.0"), candidate) is not None
    assert lack(Requires(min_tinysight="1.0.0"), Machine(arch="x", memory_mib=1, tinysight="1.0.0+local")) is None
    assert lack(Requires(min_tinysight="0.0.1"), Machine(arch="x", memory_mib=1, tinysight="unknown")) is not None


def test_this_machine_is_seen() -> None:
    here = Machine.here()
    assert here.arch
    assert here.memory_mib > 64
    assert here.tinysight == __version__


def test_a_machine_that_shows_nothing_has_nothing(tmp_path: Path) -> None:
    assert Machine.here(tmp_path).memory_mib == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_bytes(b"\xff MemTotal: x kB")
    assert Machine.here(tmp_path).memory_mib == 0
    (tmp_path / "proc/meminfo").write_text("MemTotal:         441000 kB\nMemFree: 1 kB\n")
    assert Machine.here(tmp_path) == Machine(arch=Machine.here().arch, memory_mib=430)


@pytest.mark.parametrize(
    ("ids", "found"), [(("1a6e", "089a"), True), (("18d1", "9302"), True), (("18d1", "0001"), False), (None, False)]
)
def test_an_edge_tpu_on_usb_is_seen(tmp_path: Path, ids: tuple[str, str] | None, found: bool) -> None:
    device = tmp_path / "sys/bus/usb/devices/1-1"
    device.mkdir(parents=True)
    (device / "idVendor").write_text("1a6e\n" if ids is None else f"{ids[0]}\n")
    if ids is not None:
        (device / "idProduct").write_text(f"{ids[1]}\n")
    assert ("edgetpu" in Machine.here(tmp_path).accelerators) is found


def test_an_edge_tpu_on_pcie_is_seen(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/apex_0").touch()
    assert Machine.here(tmp_path).accelerators == {"edgetpu"}


def test_what_is_said_is_read_and_written_alike() -> None:
    signed = parse_signed({**SAID, "more": {"later": [1]}, "requires": {"arch": ["armv7l"], "more": 1}})
    assert signed.released_at == datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert parse_signed(msgspec.to_builtins(signed)) == signed
    assert msgspec.json.decode(msgspec.json.encode(signed), type=Signed) == signed


@pytest.mark.parametrize(
    "custom", [None, {}, [], "x", {**SAID, "release": 1.5}, {**SAID, "version": "1"}, {**SAID, "release": True}]
)
def test_what_makes_no_sense_is_malformed(custom: Any) -> None:
    with pytest.raises(UpdateError) as caught:
        parse_signed(custom)
    assert caught.value.code is Code.MALFORMED
    assert "tinysight release add" in caught.value.mend


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner))


@given(st.sampled_from([*SAID, "requires", "deltas", "other"]), anything)
def test_whatever_is_said_is_read_or_malformed(key: str, value: Any) -> None:
    try:
        signed = parse_signed({**SAID, key: value})
    except UpdateError as error:
        assert error.code is Code.MALFORMED  # noqa: PT017 -- either may come
    else:
        assert len(msgspec.json.encode(signed)) < 1 << 16
