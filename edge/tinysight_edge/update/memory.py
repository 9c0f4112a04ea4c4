"""What memory a device has to spare."""

import re
import sys
from pathlib import Path

__all__ = ["free_mib"]


def free_mib(meminfo: Path = Path("/proc/meminfo")) -> int:
    """What may be taken without driving out others, which on a small device is less than any fixed limit."""
    try:
        found = re.search(r"(?m)^MemAvailable: +(\d+) kB$", meminfo.read_text())
    except OSError:
        found = None
    return int(found[1]) // 1024 if found else sys.maxsize
