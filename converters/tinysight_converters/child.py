"""Work in a child process, for what leaks or must not be loaded here.

In: a module of ours with a ``__main__``, and its job.  Out: nothing but an error in the child's own last words.
"""

import os
import subprocess
import sys
from typing import Final

import msgspec

from tinysight_contract.errors import ConversionError

__all__ = ["run_child"]

TIMEOUT_S: Final = 1800.0
# The same answers whatever the user set: oneDNN rounds otherwise.
ENVIRONMENT: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONHASHSEED": "0",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


def run_child(
    module: str, job: msgspec.Struct, *, what: str, mend: str = "`tinysight lint` looks at its layers."
) -> None:
    """Run ``python -P -m module JOB`` to its end; with ``-P`` no module in the user's folder is taken for one of ours.

    Args:
        module: reads its job as JSON from its first argument.
        job: what it is to do.
        what: who fails, as ``The TFLite converter``.
        mend: what helps then.

    Raises:
        ConversionError: it failed, with its own words; or it took longer than half an hour.
    """
    command = [sys.executable, "-P", "-m", module, msgspec.json.encode(job).decode()]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=TIMEOUT_S, env={**os.environ, **ENVIRONMENT}, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"{what} does not end.", mend="Try a smaller model.") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"status {done.returncode}"
        raise ConversionError(f"{what} failed: {why}.", mend=mend)
