"""Keep the banners of native libraries off stderr, and nothing else."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_lines"]


@contextmanager
def without_lines(*starts: bytes) -> Iterator[None]:
    """Drop the lines that begin so from what is written to stderr meanwhile, also by C++; pass on the others.

    For banners that a library offers no switch for. Affects the whole process, so keep the block short.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if not line.startswith(starts)))
