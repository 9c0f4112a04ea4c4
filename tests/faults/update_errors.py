"""Runs commands one after the other, each in a process of its own in which the kernel fails now and then.

To be run by ``fiu-run -x``, with a JSON list of command lines. Prints a JSON list of their statuses. The n-th has the
n-th sequence of errors, the same each time; what is loaded and what it prints is spared.
"""

import ctypes
import json
import os
import sys
from unittest import mock

import tinysight_edge.cli_store
import tinysight_edge.console
import tinysight_edge.health.machine
import tinysight_edge.update.delta
import tinysight_edge.update.installer
import tinysight_edge.update.offered
import tinysight_edge.update.owner
import tinysight_edge.update.transfer
import tinysight_edge.update.trust  # noqa: F401 -- what is loaded before errors begin
from tinysight_deploy.cli import _run
from tinysight_edge.update.selftest import Verdict

NAMES = (b"posix/io/oc/*", b"posix/io/rw/*", b"posix/io/sync/*", b"posix/io/dir/*", b"posix/io/stat/*")
PROBABILITIES = (0.001, 0.002, 0.005, 0.01, 0.02)


def fail_at_random(seed: int) -> None:
    library = ctypes.CDLL("libfiu.so.0")
    library.fiu_set_prng_seed(ctypes.c_uint(seed))
    for name in NAMES:
        library.fiu_enable_random(name, 1, None, 0, ctypes.c_float(PROBABILITIES[seed % len(PROBABILITIES)]))


def child(number: int, arguments: list[str]) -> None:
    with (
        open(os.devnull, "w") as out,  # noqa: PTH123 -- before errors begin
        mock.patch("sys.stdout", out),
        mock.patch("sys.stderr", out),
        mock.patch("tinysight_edge.update.selftest.run_selftest", return_value=Verdict()),
    ):
        fail_at_random(number)
        try:
            status = _run(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:  # noqa: BLE001 -- that it ended with a stack counts, too
            status = 70
        os._exit(status)


def main() -> None:
    statuses = []
    for number, arguments in enumerate(json.loads(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            child(number, arguments)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sys.stdout.write(json.dumps(statuses))


main()
