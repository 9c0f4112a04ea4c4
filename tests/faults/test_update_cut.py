"""Processes that update are stopped, killed, and given errors by the kernel: what runs goes on, and so do they."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tinysight_contract.updates import Code, UpdateState


def test_of_two_installs_at_once_one_goes_on_and_the_other_is_told_to_wait(
    device: Any, fields: Any, serve: Any, real: Any, eventually: Any, tell: Any
) -> None:
    device.shop.add(device.make(2), 2)
    server = serve(device.shop.folder)
    first = subprocess.Popen(fields.command_of(*device.command(2, source=server.url)), stdout=subprocess.DEVNULL)
    eventually(lambda: any(asked.path.startswith("targets/") for asked in server.asked))
    first.send_signal(signal.SIGSTOP)
    began = device.store.state()
    assert began.candidate is not None, "it holds the store"
    begun_s = time.monotonic()
    second = real(*device.command(2))
    found_s = time.monotonic() - begun_s
    assert (second.status, second.lines) == (2, [])
    assert "is being written to. Wait for the other" in second.errors
    assert device.store.state() == began
    assert device.store.boot().manifest.release == 1
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    coming = device.store.state().candidate
    assert coming is not None
    assert (coming.state, coming.code) == (UpdateState.TRIAL, None)
    said = "the second ends with status 2 and its mend; the first goes its way"
    tell("two updates at once", found_s=found_s, published=said)
