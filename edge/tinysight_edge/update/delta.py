"""The difference between two bundles: what a device that has the one needs to make the other.

``make_delta`` and ``apply_delta`` are inverses, for bundles and for any other bytes. A delta is a list of steps, each
of which gives the next bytes of the new file: ``copy`` takes them from the base; ``add`` adds to bytes of the base, one
by one, as suits weights that were trained a little further; ``patch`` is zstd with the base as what came before, as
suits text. ``make_delta`` takes for each member of a bundle what is smallest. ::

    "TSD1", u32 length of the plan, plan (msgpack), then each step's zstd frame

A delta is never trusted: what is made of it is compared with the digest that was signed for the whole bundle, and
until then takes no more memory than that bundle would.
"""

import hashlib
import io
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["apply_delta", "make_delta"]

MAGIC: Final = b"TSD1"
MOST_STEPS: Final = 1000  # a bundle has 128 members at most
_MOST_PLAN_BYTES: Final = 1 << 16
_LEVEL: Final = 19
_ADD_LEVEL: Final = 17  # differences get no smaller by more
_TRIAL_LEVEL: Final = 5  # enough to see which way is better
_CHUNK_BYTES: Final = 1 << 18
_ADD_WINDOW_LOG: Final = 21  # differences repeat themselves nearby or not at all
_BLOCK: Final = 512  # of a tar
_LEAST: Final = 256  # a shorter member goes with its neighbours
_AGAIN: Final = "Fetch the whole bundle instead."

Size = Annotated[int, Meta(ge=0, le=1 << 40)]
_Prefix = tuple[zstd.ZstdDict, int] | None


class Step(Struct, frozen=True, array_like=True):
    """How the next bytes are made.

    Attributes:
        kind: copy, add, patch; see above.
        length: bytes that it makes.
        at: where in the base it begins; 0 for ``patch``, which sees all of it.
        coded: bytes of its frame; 0 for ``copy``.
    """

    kind: Literal["copy", "add", "patch"]
    length: Size
    at: Size
    coded: Size


class _Plan(Struct, frozen=True, array_like=True):
    steps: Annotated[list[Step], Meta(max_length=MOST_STEPS)]


def apply_delta(base: bytes, delta: bytes, *, size: int, digest: str) -> bytes:
    """The new bundle; takes the memory of both bundles and of what is patched.

    Args:
        base: the bundle that is here.
        delta: what was made for it.
        size: of the new bundle, as signed, in bytes.
        digest: SHA-256 of the new bundle, as signed, 64 hex digits.

    Raises:
        UpdateError: MALFORMED when this is no delta; TAMPERED when it does not make the bundle that was signed.
    """
    steps, at = _read_plan(delta)
    if sum(step.length for step in steps) != size:
        raise UpdateError("The delta makes a bundle of another size.", mend=_AGAIN, code=Code.TAMPERED)
    new, found, view, prefix = io.BytesIO(), hashlib.sha256(), memoryview(delta), _as_prefix(base)
    for step in steps:
        for piece in _pieces(base, prefix, view[at : at + step.coded], step):
            new.write(piece)
            found.update(piece)
        at += step.coded
    if at != len(delta):
        raise UpdateError("The delta does not end where it should.", mend=_AGAIN, code=Code.MALFORMED)
    if found.hexdigest() != digest:
        raise UpdateError("The delta does not make the bundle that was signed.", mend=_AGAIN, code=Code.TAMPERED)
    return new.getvalue()


def _read_plan(delta: bytes) -> tuple[list[Step], int]:
    """The steps, and where the first frame begins."""
    length = int.from_bytes(delta[4:8], "little")
    if not delta.startswith(MAGIC) or length > _MOST_PLAN_BYTES:
        raise UpdateError("This is no delta.", mend=_AGAIN, code=Code.MALFORMED)
    try:
        return msgspec.msgpack.decode(delta[8 : 8 + length], type=_Plan).steps, 8 + length
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpdateError("The delta's plan cannot be read.", mend=_AGAIN, code=Code.MALFORMED) from error


def _pieces(base: bytes, prefix: _Prefix, frame: memoryview, step: Step) -> Iterator[bytes | memoryview]:
    """What a step makes, some kilobytes at a time and never more than it says."""
    if step.kind != "patch" and step.at + step.length > len(base):
        raise UpdateError("The delta needs more than the base holds.", mend=_AGAIN, code=Code.MALFORMED)
    if step.kind == "copy":
        yield memoryview(base)[step.at : step.at + step.length]
        return
    done = 0
    for piece in _inflated(frame, step, prefix if step.kind == "patch" else None):
        if step.kind == "patch":
            yield piece
        else:
            there = np.frombuffer(base, np.uint8, len(piece), step.at + done)
            yield (there + np.frombuffer(piece, np.uint8)).tobytes()  # modulo 256
        done += len(piece)


def _inflated(frame: memoryview, step: Step, prefix: _Prefix) -> Iterator[bytes]:
    """The bytes of a frame, exactly as many as its step says."""
    most = _window_log(step.length) if step.kind == "patch" else _ADD_WINDOW_LOG
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: most}
    left, more = step.length, frame
    try:
        decompressor = zstd.ZstdDecompressor(zstd_dict=prefix, options=options)
        while piece := decompressor.decompress(more, max_length=min(_CHUNK_BYTES, left + 1)):
            left -= len(piece)
            if left < 0 or decompressor.eof:
                break
            yield piece
            piece, more = b"", frame[:0]
    except zstd.ZstdError as error:
        raise UpdateError("The delta is damaged.", mend=_AGAIN, code=Code.MALFORMED) from error
    if left or not decompressor.eof or decompressor.unused_data:
        raise UpdateError("The delta holds more or less than it says.", mend=_AGAIN, code=Code.MALFORMED)
    if piece:
        yield piece


def _window_log(size: int) -> int:
    """What so many bytes need, as far as zstd can on 32 bits."""
    return min(30, max(10, size.bit_length()))


def _as_prefix(data: bytes) -> _Prefix:
    """Holds a copy of ``data``."""
    return zstd.ZstdDict(data, is_raw=True).as_prefix if len(data) >= 8 else None  # zstd takes no less


def make_delta(base: bytes, new: bytes) -> bytes:
    """What makes ``new`` of ``base``: a second for some megabytes, and several times their memory."""
    steps: list[Step] = []
    frames: list[bytes] = []
    begun, there = 0, _members(base)
    for name, (start, length) in _members(new).items():
        at, old_length = there.get(name, (0, 0))
        if length < _LEAST or old_length != length or len(steps) > MOST_STEPS - 3:
            continue
        old, data = base[at : at + length], new[start : start + length]
        rest = b"" if old == data else _difference(old, data)
        if not rest or len(_deflated(rest, b"", _TRIAL_LEVEL)) < len(_deflated(data, old, _TRIAL_LEVEL)):
            frame = rest and _deflated(rest, b"", _ADD_LEVEL)
            _patch(base, new[begun:start], steps, frames)
            steps.append(Step("add" if frame else "copy", length, at, len(frame)))
            frames.append(frame)
            begun = start + length
    _patch(base, new[begun:], steps, frames)
    plan = msgspec.msgpack.encode(_Plan(steps))
    return b"".join([MAGIC, len(plan).to_bytes(4, "little"), plan, *frames])


def _patch(base: bytes, data: bytes, steps: list[Step], frames: list[bytes]) -> None:
    if data:
        frames.append(_deflated(data, base))
        steps.append(Step("patch", len(data), 0, len(frames[-1])))


def _difference(old: bytes, new: bytes) -> bytes:
    """Byte by byte, modulo 256; both are equally long."""
    return (np.frombuffer(new, np.uint8) - np.frombuffer(old, np.uint8)).tobytes()


def _deflated(data: bytes, prefix: bytes, level: int = _LEVEL) -> bytes:
    """One zstd frame. With a prefix all of it is in reach; without, a small window will do on the other side."""
    window_log = _window_log(len(data) + len(prefix)) if prefix else _ADD_WINDOW_LOG
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: window_log,
    }
    return zstd.compress(data, options=options, zstd_dict=_as_prefix(prefix))


def _members(raw: bytes) -> dict[bytes, tuple[int, int]]:
    """Where the members of a bundle begin, and how long they are; as far as this is one."""
    found: dict[bytes, tuple[int, int]] = {}
    at = 0
    while any(header := raw[at : at + _BLOCK]) and header[257:262] == b"ustar":
        size = re.fullmatch(rb"[0-7]{11}", header[124:135])
        start, length = at + _BLOCK, int(size[0], 8) if size else len(raw)
        name = header[:100].rstrip(b"\0")
        if start + length > len(raw) or name in found:
            break
        found[name] = (start, length)
        at = start + -(-length // _BLOCK) * _BLOCK
    return found
