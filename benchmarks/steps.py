"""What the benchmarks share: one ``tinysight`` command, timed, and the machine's name."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["tinysight", "where"]


def tinysight(*arguments: str | Path, cwd: Path) -> dict[str, Any]:
    """Run one command with ``--json``, its narration on stderr; its result."""
    command = [sys.executable, "-P", "-m", "tinysight_deploy", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def where() -> str:
    """Processor, cores and date."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    name = found[1] if found else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}"
