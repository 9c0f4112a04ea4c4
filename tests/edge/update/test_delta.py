"""A delta makes the bundle that was signed, or an error that says so; whatever it is, in bounded memory."""

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.errors import UpdateError
from tinysight_contract.manifest import Manifest
from tinysight_contract.updates import Code
from tinysight_edge.update.delta import MAGIC, apply_delta, make_delta

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]

USUAL_S = 4  # what the numbers of examples below take
TIMES = max(1.0, float(os.environ.get("TINYSIGHT_FUZZ_S", "0")) / USUAL_S)
WEIGHTS = random.Random(5).randbytes(200_000)


def examples(number: int) -> settings:
    """So many in CI, or as many more as were asked for."""
    return settings(max_examples=int(number * TIMES), suppress_health_check=list(HealthCheck))


def applied(base: bytes, delta: bytes, new: bytes) -> bytes:
    return apply_delta(base, delta, size=len(new), digest=hashlib.sha256(new).hexdigest())


def packed(sample: Sample, **changed: bytes) -> bytes:
    """A bundle whose weights are of some size; underscores in names stand for dots."""
    manifest, files = sample()
    files |= {"int8.tflite": WEIGHTS} | {name.replace("_", "."): data for name, data in changed.items()}
    return pack_bundle(replace(manifest, files={name: file_ref(data) for name, data in files.items()}), files)


def nudged(data: bytes, share: float, start: int = 0) -> bytes:
    """A few of the weights a step up or down, as a fine-tune leaves them."""
    dice = random.Random(7)
    out = bytearray(data)
    for at in range(start, len(out)):
        if dice.random() < share:
            out[at] = (out[at] + dice.choice((-1, 1))) % 256
    return bytes(out)


# --- what it makes -------------------------------------------------------------------------------------------------


@examples(150)
@given(base=st.binary(max_size=3000), new=st.binary(max_size=3000), kept=st.integers(0, 3000))
def test_a_delta_of_any_bytes_makes_them(base: bytes, new: bytes, kept: int) -> None:
    new = base[:kept] + new
    assert applied(base, make_delta(base, new), new) == new


@pytest.mark.parametrize(
    ("base", "new"),
    [
        pytest.param(b"", b"", id="nothing of nothing"),
        pytest.param(b"", b"x" * 5_000_000, id="much of nothing"),
        pytest.param(b"x" * 5_000_000, b"", id="nothing of much"),
        pytest.param(b"1234567", b"12345678", id="a base below what zstd takes"),
        pytest.param(b"\x37\xa4\x30\xec" + bytes(200), b"\x37\xa4\x30\xec" + bytes(300), id="looks like a dictionary"),
        pytest.param(WEIGHTS, WEIGHTS[::-1], id="nothing in common"),
    ],
)
def test_odd_bytes_survive(base: bytes, new: bytes) -> None:
    assert applied(base, make_delta(base, new), new) == new


@examples(25)
@given(data=st.data())
def test_a_delta_between_bundles_makes_the_new_one(data: st.DataObject, sample: Sample) -> None:
    def some() -> dict[str, bytes]:
        names = data.draw(st.sets(st.sampled_from(["a", "b.html", "c.json", "int8_tflite"])))
        return {name: WEIGHTS[: data.draw(st.integers(0, 2000))] + data.draw(st.binary(max_size=400)) for name in names}

    base, new = packed(sample, **some()), packed(sample, **some())
    made = applied(base, make_delta(base, new), new)
    assert made == new
    assert Bundle.parse(made, source="made").digest == hashlib.sha256(new).hexdigest()


def test_a_member_twice_and_a_header_without_a_size_are_only_bytes(sample: Sample) -> None:
    raw = packed(sample)
    for new in (raw + raw, raw[:1024] + raw, raw.replace(b"ustar", b"xstar"), raw[512:], raw[: len(raw) // 2]):
        assert applied(raw, make_delta(raw, new), new) == new


def test_of_a_head_alone_almost_nothing_moves(sample: Sample) -> None:
    base = packed(sample)
    new = packed(sample, int8_tflite=nudged(WEIGHTS, 1.0, start=198_000))
    delta = make_delta(base, new)
    assert applied(base, delta, new) == new
    assert len(delta) < 0.01 * len(new)


def test_of_a_head_with_another_class_almost_nothing_moves(sample: Sample) -> None:
    base = packed(sample)
    new = packed(sample, int8_tflite=WEIGHTS[:150_000] + bytes(range(96)) + WEIGHTS[150_000:])
    delta = make_delta(base, new)
    assert applied(base, delta, new) == new
    assert len(delta) < 0.01 * len(new)


def test_of_weights_that_moved_a_little_a_part_moves(sample: Sample) -> None:
    base = packed(sample)
    new = packed(sample, int8_tflite=nudged(WEIGHTS, 0.3))
    delta = make_delta(base, new)
    assert applied(base, delta, new) == new
    assert len(delta) < 0.22 * len(new)  # 1.18 bits of 8 a weight, by Shannon, are 0.15; zstd with the base alone: 1.0


def test_the_same_bundle_is_a_few_bytes(sample: Sample) -> None:
    base = packed(sample)
    assert len(make_delta(base, base)) < 500


def test_real_bundles(belt_bundle: Path, world: Path) -> None:
    base, new = belt_bundle.read_bytes(), (world / "detector.bundle").read_bytes()
    assert applied(base, make_delta(base, new), new) == new


# --- what it refuses -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(sample: Sample) -> tuple[bytes, bytes, bytes]:
    """Base, new, delta: with steps of all three kinds."""
    base = packed(sample, same=WEIGHTS[:900], page_html=b"a page " * 90)
    new = packed(sample, same=WEIGHTS[:900], page_html=b"a longer page " * 90, int8_tflite=nudged(WEIGHTS, 0.1))
    delta = make_delta(base, new)
    assert all(kind in delta for kind in (b"copy", b"add", b"patch"))
    return base, new, delta


def refused(base: bytes, delta: bytes, new: bytes) -> Code:
    with pytest.raises(UpdateError) as error:
        applied(base, delta, new)
    assert error.value.code in {Code.TAMPERED, Code.MALFORMED}
    return error.value.code


@examples(400)
@given(place=st.floats(0, 1), flip=st.integers(1, 255), cut=st.booleans(), head=st.booleans())
def test_a_delta_that_was_damaged_is_refused_or_harmless(
    place: float, flip: int, cut: bool, head: bool, pair: tuple[bytes, bytes, bytes]
) -> None:
    base, new, delta = pair
    at = int(place * ((300 if head else len(delta)) - 1))  # the plan is in front
    changed = delta[:at] if cut else delta[:at] + bytes([delta[at] ^ flip]) + delta[at + 1 :]
    try:
        assert applied(base, changed, new) == new  # of an unused field, such as where a patch begins
    except UpdateError as error:
        assert error.code in {Code.TAMPERED, Code.MALFORMED}  # noqa: PT017 -- both ways are right


@examples(200)
@given(raw=st.binary(max_size=300), plan=st.recursive(st.integers() | st.text(max_size=5), st.lists, max_leaves=12))
def test_any_bytes_and_any_plan_are_refused(raw: bytes, plan: Any, pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, _ = pair
    assert refused(base, raw, new) is Code.MALFORMED
    assert refused(base, MAGIC + raw, new) in {Code.MALFORMED, Code.TAMPERED}
    if all(-(2**63) <= number < 2**64 for number in numbers(plan)):
        refused(base, framed([plan]) + raw, new)


def numbers(tree: Any) -> list[int]:
    return [tree] if isinstance(tree, int) else [each for part in tree if part != tree for each in numbers(part)]


def framed(plan: Any, *frames: bytes) -> bytes:
    raw = msgspec.msgpack.encode(plan)
    return b"".join([MAGIC, len(raw).to_bytes(4, "little"), raw, *frames])


def test_another_base_is_told(pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, delta = pair
    at = base.index(WEIGHTS[:900]) + 450  # a byte that a step needs; one that none does is no other base
    for other in (b"", base[:-1], base[1:], base[:at] + bytes([base[at] ^ 1]) + base[at + 1 :], new, base + base):
        if other != base + base:  # what is behind the base is out of a patch's sight only by chance
            refused(other, delta, new)


@pytest.mark.parametrize("by", [-1, 1, -100_000, 1 << 40])
def test_a_size_that_is_not_the_signed_one_is_told(by: int, pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, delta = pair
    with pytest.raises(UpdateError) as error:
        apply_delta(base, delta, size=len(new) + by, digest=hashlib.sha256(new).hexdigest())
    assert error.value.code is Code.TAMPERED


def test_a_delta_for_another_bundle_is_told(pair: tuple[bytes, bytes, bytes]) -> None:
    base, new, delta = pair
    assert refused(base, delta, new[:-1] + b"?") is Code.TAMPERED


def z(data: bytes) -> bytes:
    return zstd.compress(data, 3)


def hostile(base: bytes) -> dict[str, bytes]:
    nine, ten = z(b"x" * 9), z(b"x" * 10)
    return {
        "more bytes than the step says": framed([[["patch", 9, 0, len(ten)]]], ten),
        "fewer bytes than the step says": framed([[["patch", 10, 0, len(nine)]]], nine),
        "two frames in one step": framed([[["patch", 9, 0, 2 * len(nine)]]], nine * 2),
        "bytes after the last frame": framed([[["patch", 9, 0, len(nine)]]], nine + b"?"),
        "a frame that is missing": framed([[["patch", 9, 0, 20]]]),
        "a copy from behind the base": framed([[["copy", 9, len(base) - 8, 0]]]),
        "a sum from behind the base": framed([[["add", 9, len(base), len(nine)]]], nine),
        "a copy from before the base": framed([[["copy", 9, -4, 0]]]),
        "a length below nothing": framed([[["copy", -9, 0, 0], ["copy", 18, 0, 0]]]),
        "an unknown kind": framed([[["link", 9, 0, 0]]]),
        "more steps than are read": framed([[["copy", 0, 0, 0]] * 3000 + [["copy", 9, 0, 0]]]),
        "nested without end": MAGIC + (60_000).to_bytes(4, "little") + b"\x91" * 60_000,
        "a plan of many megabytes": MAGIC + b"\xff\xff\xff\x7f" + bytes(9_000_000),
    }


@pytest.mark.parametrize("size", [8, 9, 10])
def test_a_delta_that_lies_is_refused(size: int, pair: tuple[bytes, bytes, bytes]) -> None:
    for case, delta in hostile(pair[0]).items():
        with pytest.raises(UpdateError) as error:
            apply_delta(pair[0], delta, size=size, digest="0" * 64)
        assert error.value.code in {Code.TAMPERED, Code.MALFORMED}, case


BOMBS = """
    import json, re
    import msgspec
    from tinysight_contract.errors import UpdateError
    from tinysight_edge.update.delta import apply_delta, zstd

    MIB = 1 << 20
    def framed(plan, *frames):
        raw = msgspec.msgpack.encode([plan])
        return b"".join([b"TSD1", len(raw).to_bytes(4, "little"), raw, *frames])

    def inflating(mib, options=None):
        out = zstd.ZstdCompressor(options={zstd.CompressionParameter.compression_level: 3, **(options or {})})
        return b"".join([*(out.compress(bytes(MIB)) for _ in range(mib)), out.flush()])

    window = {zstd.CompressionParameter.window_log: 30}
    huge = b"\\x28\\xb5\\x2f\\xfd\\xe0" + (1 << 40).to_bytes(8, "little") + inflating(1)[6:]  # says 1 TiB of content
    base = bytes(range(256)) * 4096
    cases = {
        "inflates": (inflating(600), 1000, 1000),
        "inflates to all it may": (inflating(600), 8 * MIB, 8 * MIB),
        "window": (zstd.compress(b"x" * 5, options=window), 5, 5),
        "window of a stream": (inflating(1, window), MIB, MIB),
        "content size": (huge, 1000, 1000),
        "length": (inflating(1), 1 << 39, 1000),
    }
    def peak_mib():  # of this process alone, which ru_maxrss is not
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

    before = peak_mib()
    for name, (frame, length, size) in cases.items():
        for kind in ("patch", "add"):
            delta = framed([[kind, length, 0, len(frame)]], frame)
            try:
                apply_delta(base * 9, delta, size=size, digest="0" * 64)
            except UpdateError as error:
                print(json.dumps([name, kind, error.code, peak_mib() - before]))
"""


def test_a_bomb_takes_no_more_memory_than_the_bundle_that_was_signed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOMBS)], capture_output=True, text=True, check=True, timeout=120
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 12
    assert max(grown for *_, grown in told) < 48, told  # MiB: two bases of 9, 8 of output, as much of window
