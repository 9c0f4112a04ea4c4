"""The difference between two bundles: what a device that has the one needs to make the other.

``make_delta`` and ``apply_delta`` are inverses. A delta is never trusted: what is made of it is compared with the
digest that was signed for the whole bundle, and until then it may take no more memory than that bundle would.
"""

import hashlib
import sys
from typing import Final

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["apply_delta", "make_delta"]

MAGIC: Final = b"TSD1"
_LEVEL: Final = 19
_AGAIN: Final = "Fetch the whole bundle instead."


def make_delta(base: bytes, new: bytes) -> bytes:
    """What makes ``new`` of ``base``."""
    window_log = max(10, (len(base) + len(new)).bit_length())
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.window_log: window_log,
    }
    prefix = zstd.ZstdDict(base, is_raw=True).as_prefix if len(base) >= 8 else None
    return MAGIC + zstd.compress(new, options=options, zstd_dict=prefix)


def apply_delta(base: bytes, delta: bytes, *, size: int, digest: str) -> bytes:
    """The new bundle.

    Args:
        base: the bundle that is here.
        delta: what was made for it.
        size: of the new bundle, as signed, in bytes.
        digest: SHA-256 of the new bundle, as signed, 64 hex digits.

    Raises:
        UpdateError: MALFORMED when this is no delta; TAMPERED when it does not make the bundle that was signed.
    """
    if not delta.startswith(MAGIC):
        raise UpdateError("This is no delta.", mend=_AGAIN, code=Code.MALFORMED)
    prefix = zstd.ZstdDict(base, is_raw=True).as_prefix if len(base) >= 8 else None
    options: dict[int, int] = {
        zstd.DecompressionParameter.window_log_max: max(10, min(31, (len(base) + size).bit_length()))
    }
    decompressor = zstd.ZstdDecompressor(zstd_dict=prefix, options=options)
    try:
        new = decompressor.decompress(delta[len(MAGIC) :], max_length=size + 1)
    except zstd.ZstdError as error:
        raise UpdateError(f"The delta is damaged: {error}.", mend=_AGAIN, code=Code.MALFORMED) from error
    if len(new) != size or not decompressor.eof or hashlib.sha256(new).hexdigest() != digest:
        raise UpdateError("The delta does not make the bundle that was signed.", mend=_AGAIN, code=Code.TAMPERED)
    return new
