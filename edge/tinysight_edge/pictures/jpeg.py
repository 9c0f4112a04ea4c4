"""JPEG files that say themselves what they show.

In: a picture and a message.  Out: a JPEG whose comment segment (COM) holds the message as JSON, and back. It is one
file, so a power cut cannot leave a picture with the words of another; a copy, byte for byte, keeps its words.
"""

from typing import Final, TypeVar

import cv2
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.messages import encode

__all__ = ["MAX_COMMENT_BYTES", "read_comment", "shrunk", "small_jpeg", "with_comment", "write_jpeg"]

COARSER: Final = (70, 50, 30)
LEAST_PX: Final = 8
MAX_COMMENT_BYTES: Final = 0xFFFF - 2
_SOI, _APP0, _COM, _SOS = b"\xff\xd8", b"\xff\xe0", b"\xff\xfe", b"\xff\xda"
S = TypeVar("S", bound=Struct)


def write_jpeg(image: NDArray[np.uint8], says: Struct, *, quality: int) -> bytes:
    """Encode a picture (H, W, 3) uint8 BGR with its message.

    Raises:
        ValueError: the picture cannot be a JPEG, or the message is longer than 64 KiB.
    """
    good, raw = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not good:
        raise ValueError(f"a picture of {image.shape} cannot be a JPEG")
    return with_comment(raw.tobytes(), encode(says))


def small_jpeg(image: NDArray[np.uint8], *, most_bytes: int, quality: int = 85) -> tuple[bytes, tuple[int, int]]:
    """Encode a picture (H, W, 3) uint8 BGR in no more than so many bytes: coarser first, then smaller.

    Returns:
        The JPEG, and its width and height.

    Raises:
        ValueError: the picture cannot be a JPEG, or not one so small.
    """
    while min(image.shape[:2]) >= LEAST_PX:
        for each in (quality, *(lower for lower in COARSER if lower < quality)):
            good, raw = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, each))
            if good and len(raw) <= most_bytes:
                return raw.tobytes(), (image.shape[1], image.shape[0])
        size = max(image.shape[1] // 2, 1), max(image.shape[0] // 2, 1)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    raise ValueError(f"a picture of {image.shape} cannot be a JPEG of {most_bytes} bytes")


def shrunk(jpeg: bytes, says: type[Struct], *, most_bytes: int) -> bytes:
    """The same picture with the same message in no more than so many bytes.

    Raises:
        ValueError: it is no JPEG, or cannot be so small.
    """
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("the file is no JPEG")
    said = read_comment(jpeg, says)
    comment = b"" if said is None else encode(said)
    smaller, _ = small_jpeg(np.asarray(image, np.uint8), most_bytes=most_bytes - len(comment) - 4)
    return with_comment(smaller, comment) if comment else smaller


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The JPEG with a comment, after the JFIF header, which must come first.

    Raises:
        ValueError: the comment is longer than 64 KiB.
    """
    if len(comment) > MAX_COMMENT_BYTES:
        raise ValueError(f"a comment of {len(comment)} bytes is too long for a JPEG")
    at = 2 + (2 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == _APP0 else 0)
    return jpeg[:at] + _COM + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[at:]


def read_comment(jpeg: bytes, kind: type[S]) -> S | None:
    """The message of a JPEG, of which the beginning suffices; None when there is none of this kind."""
    at = 2
    while jpeg[:2] == _SOI and at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at : at + 2] != _SOS:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at : at + 2] == _COM:
            try:
                return msgspec.json.decode(jpeg[at + 4 : end], type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
        at = end
    return None
