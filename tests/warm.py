"""Processes that begin with TensorFlow loaded: about five seconds of work less for each.

In: a module with a ``__main__`` and its arguments.  Out: what a process of its own would have said, and its status.
Each is forked from one that has loaded TensorFlow, has asked it nothing and has no second thread: nothing that one of
them does is left for the next.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

from tinysight_converters.child import ENVIRONMENT

__all__ = ["Warm"]

LOADED: Final = ["tensorflow", "keras", "tensorflow.lite.python.convert", "matplotlib.pyplot", "cv2", "msgspec"]
# What is read when a library is loaded; with one thread of OpenBLAS the process has none but its own.
AT_LOADING: Final = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}
# Test processes are more than cores: more threads would wait for each other. It is read at TensorFlow's first step.
ONE_THREAD: Final = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


class Warm:
    """Starts such processes. TensorFlow is loaded when the first one is asked for.

    Attributes:
        environment: with it a process of its own reckons as these do, to the last bit.
    """

    environment: Final = {**ENVIRONMENT, **ONE_THREAD}

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")

    def start(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, said: Path
    ) -> Any:  # typeshed has no common name for a process of a context
        """Begin ``python -m module ARGUMENTS``.

        Args:
            module: has a ``__main__``.
            arguments: its command line.
            cwd: where it runs.
            env: its environment, ours by default.
            said: a folder for the files ``out`` and ``err``.

        Returns:
            a `multiprocessing.Process` that runs.
        """
        before = dict(os.environ)
        os.environ |= AT_LOADING
        try:
            self._context.set_forkserver_preload(LOADED)
            forkserver.ensure_running()
        finally:
            for name in AT_LOADING:
                os.environ.pop(name)
            os.environ |= before
        given = {"given": ([module, *arguments], str(cwd), dict(os.environ if env is None else env), str(said))}
        process = self._context.Process(target=runpy.run_path, args=(__file__, given, "__main__"))
        process.start()
        return process

    def run(
        self,
        module: str,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end.

        Raises:
            subprocess.TimeoutExpired: it took longer, and was killed.
        """
        with tempfile.TemporaryDirectory() as said:
            process = self.start(module, *arguments, cwd=cwd, env=env, said=Path(said))
            process.join(timeout_s)
            if process.exitcode is None:
                process.kill()
                process.join()
                raise subprocess.TimeoutExpired([module, *arguments], timeout_s)
            out, err = ((Path(said) / name).read_bytes() for name in ("out", "err"))
            return subprocess.CompletedProcess([module, *arguments], process.exitcode, out, err)

    def run_command(
        self, command: list[str], *, env: Mapping[str, str], timeout: float, **_: object
    ) -> subprocess.CompletedProcess[bytes]:
        """Stands for `subprocess.run` where that is asked for ``python -P -m module ARGUMENTS`` and what it says."""
        assert command[:3] == [sys.executable, "-P", "-m"], command
        return self.run(*command[3:], cwd=Path.cwd(), env=env, timeout_s=timeout)


def _become(command: list[str], cwd: str, env: dict[str, str], said: str) -> None:
    """What the forked process does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update({**env, **ONE_THREAD})
    for descriptor, name in ((1, "out"), (2, "err")):
        with (Path(said) / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv[:] = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(*globals()["given"])
