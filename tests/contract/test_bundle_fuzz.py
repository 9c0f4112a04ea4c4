"""Whatever a bundle holds, it opens or is refused: in bounded memory and steps, and never with another error.

``TINYSIGHT_FUZZ_S=600 pytest --timeout 0 tests/contract/test_bundle_fuzz.py`` looks for about so many seconds a test.
"""

import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.errors import BundleError
from tinysight_contract.manifest import Manifest, parse_manifest

Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]

BLOCK = 512
USUAL_S = 4  # what the numbers of examples below take
TIMES = max(1.0, float(os.environ.get("TINYSIGHT_FUZZ_S", "0")) / USUAL_S)
MOST_STEPS = 60_000  # calls; an honest small bundle takes 600
MOST_TEXT = 1000  # an error travels over MQTT


def examples(number: int) -> settings:
    """So many in CI, or as many more as were asked for."""
    return settings(max_examples=int(number * TIMES), suppress_health_check=list(HealthCheck))


class StuckError(BaseException):
    """Nothing catches it on the way."""


def bounded(read: Callable[[], Any], most_bytes: int) -> Any:
    """What ``read`` gives, or the error that is meant for it; any other, too many calls or bytes fail the test."""
    calls = 0

    def count(_frame: Any, _event: str, _argument: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_STEPS:
            sys.setprofile(None)
            raise StuckError(f"{calls} calls")

    before = sys.getprofile()
    tracemalloc.start()
    sys.setprofile(count)
    try:
        found = read()
    except BundleError as error:
        found = error
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < most_bytes
    assert not isinstance(found, BundleError) or len(str(found)) < MOST_TEXT
    return found


def judge(raw: bytes) -> Bundle | None:
    """The bundle, whose content is then what its manifest says; None when it is refused."""
    bundle = bounded(lambda: Bundle.parse(raw, source="fuzz"), 8 * len(raw) + (1 << 20))
    if isinstance(bundle, BundleError):
        return None
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    assert {name: file_ref(data) for name, data in files.items()} == bundle.manifest.files
    assert (bundle.digest, bundle.size_bytes) == (file_ref(raw).sha256, len(raw))
    assert parse_manifest(bundle.manifest.to_json()) == bundle.manifest
    assert isinstance(bundle, Bundle)
    return bundle


# --- bytes ---------------------------------------------------------------------------------------------------------

cuts = st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 3000), st.binary(max_size=20))
flips = st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255), st.binary(max_size=0))
pastes = st.tuples(st.just("paste"), st.floats(0, 1), st.integers(0, 40), st.binary(max_size=600))
moves = st.tuples(st.just("move"), st.floats(0, 1), st.integers(0, 60), st.binary(max_size=0))


def bent(raw: bytes, kind: str, place: float, number: int, more: bytes) -> bytes:
    at = int(place * (len(raw) - 1)) if raw else 0
    if kind == "cut":
        return raw[:at] + more + raw[at + number :]
    if kind == "flip":
        return raw[:at] + bytes([raw[at] ^ number]) + raw[at + 1 :] if raw else raw
    if kind == "paste":
        return raw[:at] + more * number + raw[at:]
    block = at // BLOCK * BLOCK
    return raw[: number * BLOCK] + raw[block : block + 2 * BLOCK] + raw[number * BLOCK :]


@examples(1500)
@given(mutations=st.lists(st.one_of(flips, cuts, pastes, moves), min_size=1, max_size=4))
def test_bytes_of_a_bundle_may_be_anything(mutations: list[tuple[str, float, int, bytes]], sample: Sample) -> None:
    raw = pack_bundle(*sample())
    for mutation in mutations:
        raw = bent(raw, *mutation)
    judge(raw)


# --- headers -------------------------------------------------------------------------------------------------------

WORDS = [b"", b"\0", b"x", b"../x", b"/etc/passwd", b"a/b", b".", b"..", b"labels.txt", b"manifest.json", b"\xff\xfe",
         b"a\0b", b"x" * 100, b"manifest.json/", b"././@LongLink", "\u202egnp".encode(), b"con", b"-rf"]  # fmt: skip
NUMBERS = [b"%011o\0" % 0, b"%011o\0" % 5, b"%011o\0" % 512, b"7" * 11 + b"\0", b"-0000000001\0", b"\0" * 12, b" " * 12,
           b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80" + bytes(10) + b"\x05", b"\xff" + b"\xff" * 9 + b"\xf0\x00",
           b"0x000000010\0", b"+0000000005\0", b"00_00000005\0", b"1" * 12]  # fmt: skip
KINDS = [bytes([kind]) for kind in b"0\x001234567gxLKSDMVNX9\xff"]
BODIES = [b"", b"19 path=../../evil\n", b"14 size=-2048\n", b"1" * 5000, b"999999999 size=1\n", b"0 a=b\n",
          b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", b"25 hdrcharset=BINARY\n1 2\n", b"x" * 512, b"x" * 1025,
          b"30 GNU.sparse.map=0,1,9999999,1\n", b"1" * 512 + b"\n"]  # fmt: skip

fields = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(WORDS) | st.binary(max_size=100),
        "size": st.sampled_from(NUMBERS) | st.binary(min_size=12, max_size=12),
        "kind": st.sampled_from(KINDS),
        "link": st.sampled_from(WORDS),
        "magic": st.sampled_from([b"ustar  \0", b"ustar\0" + b"01", bytes(8), b"USTAR\0" + b"00"]),
        "prefix": st.sampled_from(WORDS),
        "mode": st.sampled_from([b"0004755\0", b"\xff" * 8, b"zzzzzzz\0"]),
        "sum": st.sampled_from([b"\0" * 8, b"0000000\0", b"\xff" * 8, b"-000001\0"]),
    },
)
members = st.tuples(fields, st.sampled_from(BODIES) | st.none(), st.integers(0, 12), st.booleans())


def header(name: bytes, size: bytes, **other: bytes) -> bytes:
    """A header of these fields, whose checksum holds unless it is one of them."""
    raw = bytearray(BLOCK)
    places = {"name": 0, "mode": 100, "size": 124, "kind": 156, "link": 157, "magic": 257, "prefix": 345}
    plain = {"mode": b"0000644\0", "kind": b"0", "magic": b"ustar\00000", **other, "name": name, "size": size}
    for field, at in places.items():
        value = plain.get(field, b"")[:100]
        raw[at : at + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = other.get("sum", b"%06o\0 " % sum(raw))
    return bytes(raw)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


@examples(1500)
@given(made=st.lists(members, min_size=1, max_size=4))
def test_headers_of_a_bundle_may_be_anything(
    made: list[tuple[dict[str, bytes], Any, int, bool]], sample: Sample
) -> None:
    manifest, files = sample()
    parts = [
        header(name.encode(), b"%011o\0" % len(data)) + padded(data)
        for name, data in [("manifest.json", manifest.to_json()), *files.items()]
    ]
    for given_fields, body, place, instead in made:
        data = body if body is not None else b""
        raw = header(**{"name": b"labels.txt", "size": b"%011o\0" % len(data), **given_fields}) + padded(data)
        at = place % (len(parts) + 1)
        parts[at : at + instead] = [raw]
    judge(b"".join(parts) + bytes(2 * BLOCK))


# --- the manifest --------------------------------------------------------------------------------------------------

odd = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 2**70, -(2**63), 1e308, -0.0, 5e-324, 0.5]),
    st.sampled_from(["", "\0", "../x", "1.0", "2.0", "1." + "9" * 2000, "x" * 5000, "cat\n", "\u2028", "e\u0301",
                     "\U0001f408", "classify", "GRAY", "NCHW", "float32", "labels.txt", "heatmap"]),
    st.sampled_from([[], {}, [[]], {"": 0}, {"kind": "ssd"}, {"kind": "classify"},
                     {"kind": "centernet", "stride": 8192}]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.recursive(st.none(), lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each)),
)  # fmt: skip
changes = st.lists(
    st.tuples(
        st.lists(st.integers(0, 30), min_size=1, max_size=6), st.sampled_from(["set", "drop", "twice", "more"]), odd
    ),
    min_size=1,
    max_size=4,
)


def change(tree: Any, way: list[int], what: str, value: Any) -> None:
    """Walk into a tree of JSON and change what is there."""
    while True:
        keys = sorted(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key, way = keys[way[0] % len(keys)], way[1:]
        if way and isinstance(tree[key], dict | list) and tree[key]:
            tree = tree[key]
            continue
        if what == "drop":
            del tree[key]
        elif what == "set":
            tree[key] = value
        elif isinstance(tree, list):
            tree.append(tree[key] if what == "twice" else value)
        else:
            tree[str(value)[:40] if what == "more" else f"{key}x"] = tree[key]
        return


@examples(1500)
@given(made=changes)
def test_a_manifest_may_say_anything(made: list[tuple[list[int], str, Any]], sample: Sample) -> None:
    manifest, files = sample()
    tree = json.loads(manifest.to_json())
    for each in made:
        change(tree, *deepcopy(each))
    raw = json.dumps(tree).encode()
    parts = [("manifest.json", raw), *files.items()]
    tar = b"".join(header(name.encode(), b"%011o\0" % len(data)) + padded(data) for name, data in parts)
    bundle = judge(tar + bytes(2 * BLOCK))
    if bundle is not None:
        for variant in bundle.manifest.variants:
            assert all(side > 0 for output in variant.outputs for side in output.shape)


TEXTS = {
    "nested lists": lambda text: text.replace('"config": {', '"config": {"a": ' + "[" * 300_000 + "]" * 300_000 + ","),
    "nested objects": lambda text: text.replace('"config": {', '"z":' + '{"a":' * 99_999 + "1" + "}" * 99_999 + ',"config": {'),  # noqa: E501
    "many empty lists": lambda text: text.replace('"config": {', '"config": {"a": [' + "[]," * 300_000 + "0],"),
    "many objects": lambda text: text.replace('"config": {', '"config": {"a": [' + '{"":0},' * 140_000 + "0],"),
    "many keys": lambda text: text.replace('"config": {', '"config": {' + "".join(f'"{n}":0,' for n in range(90_000))),
    "one key again and again": lambda text: text.replace('"config": {', '"config": {' + '"a":0,' * 150_000),
    "many files": lambda text: text.replace(
        '"files": {',
        '"files": {' + "".join(f'"f{n}": {{"sha256": "{"0" * 64}", "size_bytes": 0}},' for n in range(9_000)),
    ),
    "labels beyond number": lambda text: text.replace('"cat"', ",".join(f'"l{n}"' for n in range(10_001))),
    "an integer of many digits": lambda text: text.replace('"release": 3', '"release": ' + "9" * 500_000),
    "the same, where anything may be": lambda text: text.replace('"epochs": 3', '"epochs": ' + "9" * 500_000),
    "an infinite number": lambda text: text.replace('"score": 0.3', '"score": 1e999'),
    "no number": lambda text: text.replace('"score": 0.3', '"score": NaN'),
    "half a character": lambda text: text.replace('"cat"', '"\\ud800"'),
    "a long version": lambda text: text.replace('"schema": "1.0"', '"schema": "' + "9" * 900_000 + '"'),
    "a long tag": lambda text: text.replace('"kind": "centernet"', '"kind": "' + "x" * 900_000 + '"'),
    "a long name of a tensor": lambda text: text.replace('"name": "image"', '"name": "' + "x" * 900_000 + '"').replace(
        '"scale": 1.0', '"scale": 0.0'
    ),
    "more than may be read": lambda text: text + " " * (1 << 20),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_manifest_that_is_meant_to_exhaust_is_refused(case: str, sample: Sample) -> None:
    text = sample()[0].to_json().decode()
    made = TEXTS[case](text)
    assert made != text
    found = bounded(lambda: parse_manifest(made.encode()), 64 << 20)
    assert isinstance(found, BundleError) or case.startswith(("many", "one"))  # those are large, and no contradiction


def test_a_stride_that_leaves_no_cell_is_refused(sample: Sample) -> None:
    tree = json.loads(sample()[0].to_json())
    tree["decode"]["stride"] = 17
    for output in tree["variants"][0]["outputs"]:
        output["shape"][1:3] = [7, 7]
    with pytest.raises(BundleError, match="no cell"):
        parse_manifest(msgspec.json.encode(tree))


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_of_a_million_members_no_more_than_the_first_are_read(tmp_path: Path, sample: Sample) -> None:
    manifest, _ = sample()
    text = manifest.to_json()
    os.mkfifo(pipe := tmp_path / "x.bundle")
    written = 0

    def write() -> None:
        nonlocal written
        with open(pipe, "wb", buffering=0) as out:  # noqa: PTH123 -- unbuffered, to know how far the reader came
            try:
                written += out.write(header(b"manifest.json", b"%011o\0" % len(text)) + padded(text))
                for number in range(1_000_000):
                    written += out.write(header(b"f%d" % number, b"%011o\0" % 0))
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=write)
    writer.start()
    found = bounded(lambda: Bundle.open(pipe), 1 << 20)
    writer.join()
    assert "is not listed" in str(found)
    assert written < 1 << 20


def test_a_size_that_is_only_claimed_takes_no_memory(tmp_path: Path, sample: Sample) -> None:
    manifest, files = sample()
    tree = json.loads(manifest.to_json())
    tree["files"]["labels.txt"]["size_bytes"] = 1 << 32
    text = msgspec.json.encode(tree)
    raw = (
        header(b"manifest.json", b"%011o\0" % len(text)) + padded(text) + header(b"labels.txt", b"%011o\0" % (1 << 32))
    )
    (tmp_path / "x.bundle").write_bytes(raw + padded(files["labels.txt"]) + bytes(2 * BLOCK))
    found = bounded(lambda: Bundle.open(tmp_path / "x.bundle"), 1 << 20)
    assert "ends in the middle" in str(found)
