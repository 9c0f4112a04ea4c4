"""A torch file is data: it is read to the letter, and whatever it would rather do is refused."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinysight_contract.errors import DataError
from tinysight_trainer import torch_file
from tinysight_trainer.torch_file import read_state_dict

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
FLOATS = np.arange(24, dtype="<f4")
LONGS = np.array([-(2**40)], "<i8")


def put(value: object) -> bytes:
    """The opcodes that push a plain value, a tuple of such, or opcodes already made."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(put, value)) + b"t"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, 2)[2:-1]


def storage(key: str = "0", kind: str = "FloatStorage", count: Any = 24) -> bytes:
    return put(("storage", b"ctorch\n" + kind.encode() + b"\n", key, "cpu", count, None)) + b"Q"


def tensor(size: Any, stride: Any, offset: Any = 0, of: bytes | None = None) -> bytes:
    arguments = (of or storage(), offset, size, stride, False, ORDERED_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + put(arguments) + b"R"


def state_pickle(**tensors: bytes) -> bytes:
    items = b"".join(put(name) + opcodes for name, opcodes in tensors.items())
    metadata = put({"_metadata": {"": {"version": 1}}}) + b"b"
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u" + metadata + b"."


def counted(elements: np.ndarray) -> bytes:
    return struct.pack("<q", elements.size) + elements.tobytes()


def legacy(state: bytes, *, keys: object = ("0",), storages: bytes = counted(FLOATS), head: Any = None) -> bytes:
    """A file as torch.save wrote it before 1.6."""
    magic, protocol, system = head or (torch_file.MAGIC, torch_file.PROTOCOL, SYSTEM)
    plain = [list(keys) if isinstance(keys, tuple) else keys]
    front = b"".join(pickle.dumps(part, 2) for part in (magic, protocol, system))
    return front + state + b"".join(p if isinstance(p, bytes) else pickle.dumps(p, 2) for p in plain) + storages


def read(path: Path, raw: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(raw)
    return dict(read_state_dict(path))


GOOD = legacy(
    state_pickle(
        whole=tensor((2, 3, 4), (12, 4, 1)),
        turned=tensor((4, 3), (1, 4), offset=12),
        steps=tensor((3,), (8,), offset=1),
        empty=tensor((0, 7), (7, 1)),
        count=tensor((), (), of=storage("1", "LongStorage", 1)),
    ),
    keys=("0", "1"),
    storages=counted(FLOATS) + counted(LONGS),
)


def test_a_hand_made_file_is_read_with_its_strides(tmp_path: Path) -> None:
    got = read(tmp_path / "a.pth", GOOD)
    want = {
        "whole": FLOATS.reshape(2, 3, 4),
        "turned": FLOATS[12:].reshape(3, 4).T,
        "steps": FLOATS[1::8],
        "empty": np.zeros((0, 7), np.float32),
        "count": LONGS.reshape(()),
    }
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)
        assert got[name].dtype == value.dtype
        assert got[name].flags.c_contiguous
    got["whole"][:] = 0
    assert got["turned"][0, 1] == 16  # they shared a storage; the copies do not


def small(most: int) -> Any:
    return st.lists(st.integers(0, most), min_size=2, max_size=2).map(tuple)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=small(6), stride=small(9), offset=st.integers(0, 30))
def test_a_tensor_sees_what_indexing_says_or_is_refused(
    tmp_path: Path, size: tuple[int, int], stride: tuple[int, int], offset: int
) -> None:
    raw = legacy(state_pickle(t=tensor(size, stride, offset)))
    places = [[offset + i * stride[0] + j * stride[1] for j in range(size[1])] for i in range(size[0])]
    flat = [place for row in places for place in row]
    if len(flat) > 24 or max(flat, default=0) >= 24:
        with pytest.raises(DataError, match="beyond its storage"):
            read(tmp_path / "a.pth", raw)
    else:
        np.testing.assert_array_equal(read(tmp_path / "a.pth", raw)["t"], np.array(places, np.float32).reshape(size))


class Call:
    """Pickled, it asks the reader to call something."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("place", ["magic", "system", "state", "keys"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, exec, Path.touch])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, function: Any, protocol: int, place: str) -> None:
    trace = tmp_path / "trace"
    arguments: dict[Any, object] = {os.system: f"touch {trace}", Path.touch: trace}
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    hostile = pickle.dumps(Call(function, arguments.get(function, code)), protocol)
    front = b"".join(pickle.dumps(part, 2) for part in (torch_file.MAGIC, torch_file.PROTOCOL))
    raw = {
        "magic": hostile + GOOD,
        "system": front + hostile + GOOD,
        "state": legacy(hostile),
        "keys": legacy(state_pickle(t=tensor((1,), (1,))), keys=hostile),
    }[place]
    with pytest.raises(DataError, match="not a sound PyTorch state dict"):
        read(tmp_path / "a.pth", raw)
    assert not trace.exists()


def nested(depth: int, leaf: bytes) -> bytes:
    """A tuple of itself twice, and so on: hashing it takes 2**depth steps."""
    return leaf + b"".join(b"q\x01h\x01\x86" for _ in range(depth))


FIT = state_pickle(t=tensor((24,), (1,)))
CLASS_STATE = b"(N}" + put("x") + put(1) + b"st"  # (None, {"x": 1}): set attribute x


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"", "exhausted", id="empty file"),
        pytest.param(b"PK\x03\x04" + bytes(99), "not a sound", id="the newer zip format"),
        pytest.param(b"\x89PNG\r\n" + bytes(99), "not a sound", id="not a pickle"),
        pytest.param(legacy(FIT, head=(1, 1001, SYSTEM)), "another format", id="wrong magic number"),
        pytest.param(legacy(FIT, head=(torch_file.MAGIC, 1002, SYSTEM)), "another format", id="wrong protocol"),
        pytest.param(
            legacy(FIT, head=(torch_file.MAGIC, 1001, {"little_endian": False})), "byte order", id="big-endian"
        ),
        pytest.param(legacy(b"\x80\x02ctorch\nHalfStorage\n."), "names 'torch.HalfStorage'", id="unlisted global"),
        pytest.param(legacy(b"\x80\x02ctorch.\nload\n)R."), "names 'torch..load'", id="something else of torch"),
        pytest.param(legacy(b"\x80\x02cos\nsystem\n" + put(("true",)) + b"R."), "names 'os.system'", id="os.system"),
        pytest.param(legacy(b"\x80\x02\x82\x01."), "opcode EXT1", id="extension registry"),
        pytest.param(legacy(b"\x80\x02(ios\nsystem\n."), "opcode INST", id="old instance"),
        pytest.param(legacy(b"\x80\x02" + put("x") + b"0N."), "opcode POP", id="opcode torch never writes"),
        pytest.param(legacy(pickle.dumps([1], 2)), "no mapping", id="a list"),
        pytest.param(legacy(pickle.dumps({"t": 1}, 2)), "no mapping", id="a plain dict"),
        pytest.param(legacy(state_pickle(t=put(7)), keys=(), storages=b""), "'t' is not a tensor", id="a number"),
        pytest.param(
            legacy(state_pickle(t=tensor((1,), (1,), of=put("0"))), keys=(), storages=b""),
            "'t' is not a tensor",
            id="a tensor of text",
        ),
        pytest.param(
            legacy(b"\x80\x02ccollections\nOrderedDict\n" + put(((("a", 1),),)) + b"R."),
            "not a sound",
            id="a mapping with arguments",
        ),
        pytest.param(
            legacy(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + CLASS_STATE + b"b."),
            "not a sound",
            id="attributes for a stand-in",
        ),
        pytest.param(
            legacy(b"\x80\x02ccollections\nOrderedDict\n" + CLASS_STATE + b"b."), "not a sound", id="or for the other"
        ),
        pytest.param(
            legacy(state_pickle(t=tensor((24,), (1,)) + CLASS_STATE + b"b")), "no state", id="state for a tensor"
        ),
        pytest.param(legacy(b"\x80\x02" + put("0") + b"Q."), "persistent id", id="persistent id of text"),
        pytest.param(
            legacy(b"\x80\x02" + put(("module", b"ctorch\nFloatStorage\n", "0", "cpu", 24, None)) + b"Q."),
            "persistent id",
            id="persistent id of a module",
        ),
        pytest.param(
            legacy(b"\x80\x02" + put(("storage", "<f4", "0", "cpu", 24, None)) + b"Q."),
            "persistent id",
            id="persistent id with text for a storage type",
        ),
        pytest.param(
            legacy(b"\x80\x02" + put(("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 24)) + b"Q."),
            "persistent id",
            id="persistent id too short",
        ),
        pytest.param(legacy(b"\x80\x02" + storage(count=True) + b"."), "persistent id", id="a truth for a count"),
        pytest.param(legacy(b"\x80\x02" + storage(count=-1) + b"."), "larger than the file", id="negative count"),
        pytest.param(legacy(b"\x80\x02" + storage(count=2**62) + b"."), "larger than the file", id="huge count"),
        pytest.param(
            legacy(state_pickle(a=tensor((1,), (1,)), b=tensor((1,), (1,), of=storage(count=23)))),
            "promised twice",
            id="two promises",
        ),
        pytest.param(legacy(FIT, keys=()), "storages listed", id="storage not listed"),
        pytest.param(legacy(FIT, keys=("0", "0")), "storages listed", id="storage listed twice"),
        pytest.param(legacy(FIT, keys=(("0",),)), "storages listed", id="listed by a tuple"),
        pytest.param(legacy(FIT, storages=counted(FLOATS[1:])), "cut short", id="storage shorter than promised"),
        pytest.param(legacy(FIT, storages=counted(FLOATS)[:-1]), "cut short", id="last byte missing"),
        pytest.param(legacy(FIT, storages=b""), "cut short", id="no storages"),
        pytest.param(legacy(FIT) + b"\0", "follows the last", id="a byte too many"),
        pytest.param(legacy(state_pickle(t=tensor((24,), (1,), 1))), "beyond", id="offset too far"),
        pytest.param(legacy(state_pickle(t=tensor((1,), (1,), -1))), "no sound shape", id="offset negative"),
        pytest.param(legacy(state_pickle(t=tensor((2,), (-1,), 5))), "no sound shape", id="stride negative"),
        pytest.param(legacy(state_pickle(t=tensor((2, 2), (1,)))), "no sound shape", id="stride missing"),
        pytest.param(legacy(state_pickle(t=tensor((1,) * 9, (1,) * 9))), "no sound shape", id="nine axes"),
        pytest.param(legacy(state_pickle(t=tensor((2.0,), (1,)))), "opcode BINFLOAT", id="half axes"),
        pytest.param(legacy(state_pickle(t=tensor((True,), (1,)))), "no sound shape", id="a truth for a size"),
        pytest.param(legacy(state_pickle(t=tensor((2**40,), (0,)))), "beyond", id="one element seen 2**40 times"),
        pytest.param(legacy(state_pickle(t=tensor((2**62, 2**62), (2**62, 1)))), "beyond", id="overflowing product"),
        pytest.param(legacy(state_pickle(t=tensor((2**200, 0), (0, 1)))), "not a sound", id="empty but enormous"),
        pytest.param(
            legacy(b"\x80\x02}" + nested(60, b")") + b"Ns."), "key is not text", id="a key that takes ages to hash"
        ),
        pytest.param(
            legacy(b"\x80\x02}(" + put("a") + b"N" + b")" + b"\x85" * 200_000 + b"Nu."), "key is not", id="a deep key"
        ),
        pytest.param(
            legacy(FIT, keys=b"\x80\x02](" + 2 * nested(60, b")") + b"e."),
            "listed",
            id="keys that take ages to compare",
        ),
        pytest.param(legacy(b"\x80\x02Nr\xff\xff\xff\xff."), "remembers", id="a memo of 64 GiB"),
        pytest.param(legacy(b"\x80\x02X\xff\xff\xff\xffa."), "not a sound", id="text of 4 GiB"),
        pytest.param(legacy(b"\x80\x02\x96" + b"\xff" * 8 + b"."), "not a sound", id="bytes of 16 EiB"),
        pytest.param(legacy(b"\x80\x02" + b"N" * (1 << 20) + b"."), "not a sound", id="a pickle above 1 MiB"),
        pytest.param(legacy(b"\x80\x02h\x07."), "not a sound", id="remembers what was never said"),
        pytest.param(legacy(b"\x80\x02R."), "not a sound", id="takes from an empty stack"),
    ],
)
def test_what_is_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    before = [dict(vars(stand_in)) for stand_in in (torch_file._Tensor, torch_file._Mapping)]
    with pytest.raises(DataError, match=why) as caught:
        read(tmp_path / "a.pth", raw)
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    assert [dict(vars(stand_in)) for stand_in in (torch_file._Tensor, torch_file._Mapping)] == before


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with path.open("wb") as stream:
        stream.truncate(torch_file.MAX_BYTES + 1)
    with pytest.raises(DataError, match="larger than 64 MiB"):
        read_state_dict(path)


def test_tensors_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = legacy(state_pickle(**{f"t{n}": tensor((24,), (1,)) for n in range(40)}))
    assert len(read(tmp_path / "a.pth", raw)) == 40
    monkeypatch.setattr(torch_file, "MAX_TENSORS", 39)
    with pytest.raises(DataError, match="at most 39 tensors"):
        read(tmp_path / "a.pth", raw)


def test_many_views_of_one_storage_are_weighed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tensor((1000,), (1,), of=storage(count=1000))
    raw = legacy(state_pickle(a=one, b=one, c=one), storages=counted(np.zeros(1000, "<f4")))
    monkeypatch.setattr(torch_file, "MAX_BYTES", 12_000)
    assert len(read(tmp_path / "a.pth", raw)) == 3
    monkeypatch.setattr(torch_file, "MAX_BYTES", 11_999)
    with pytest.raises(DataError, match="its tensors are larger"):
        read(tmp_path / "a.pth", raw)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pth: cannot be read"):
        read_state_dict(tmp_path / "none.pth")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    for length in range(0, len(GOOD), 7):
        with pytest.raises(DataError):
            read(tmp_path / "a.pth", GOOD[:length])


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), more=st.binary(max_size=3))
def test_a_damaged_file_gives_sound_arrays_or_an_error(tmp_path: Path, place: int, value: int, more: bytes) -> None:
    damaged = GOOD[:place] + bytes([value]) + more + GOOD[place + 1 :]
    try:
        got = read(tmp_path / "a.pth", damaged)
    except DataError:
        return
    assert all(type(array) is np.ndarray and array.dtype in {np.dtype("f4"), np.dtype("i8")} for array in got.values())
