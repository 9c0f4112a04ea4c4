"""The process in which `selftest_process` has a new bundle tried: ``python -m tinysight_edge.update.selftest_child``.

In: one line of JSON on stdin, a `Task`.  Out: one line of JSON on stdout, as `selftest_process` takes it. No library is
loaded before the process has bound itself, nothing of the bundle is read before its memory is bound, and it ends with
whoever began it. It may die at any moment of whatever is in the bundle; that is what it is for.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tinysight_contract.errors import BundleError, RuntimeLoadError, TinySightError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinysight_contract.bundle import Bundle
    from tinysight_edge.choice import EngineName
    from tinysight_edge.interpreter import Model

__all__ = ["RUNS", "Task", "main"]

RUNS: Final = 30
"""As many runs are measured at least, unless they take too long."""
MAX_RUNS: Final = 200
FEWEST_RUNS: Final = 5
PLEASANT_S: Final = 0.5  # more than RUNS are measured no longer than this
SHARE_FOR_RUNS: Final = 0.25  # of the time; what loads and proves takes the rest

MIB: Final = 1 << 20
BARE_MIB: Final = 1024  # for Python and its libraries, of which most is set aside and never used
SLACK_MIB: Final = 64  # set aside and never used by the runtime: what is used decides, not this
STACK_MIB: Final = 16  # for each thread
CPU_SPARE_S: Final = 5  # SIGXCPU comes before SIGKILL, which would look like the kernel's for want of memory
NICE: Final = 10
KILL_FIRST: Final = "1000"  # when the kernel is short of memory, it shall end this process and not the agent
SPARE_BYTES: Final = MIB  # what a file may be longer than the bundle; a copy in memory counts as a file

MAX_SAID: Final = 1000  # characters; a list of a foreign model's tensors has no end

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be tried, and within what.

    Attributes:
        parent: the process with which this one ends.
        bundle: path.
        scheme: only this variant.
        threads: of every engine.
        engine: as in `choice.choose`.
        time_s: after which the parent makes an end.
        memory_mib: what the bundle may take besides Python and its libraries.
        watched: by the parent, which makes an end when it takes too much. Else allocating fails when it would be too
            much, which is safe, but which a runtime reports like any other failure, or does not survive.
    """

    parent: int
    bundle: str
    scheme: str | None
    threads: int
    engine: "EngineName"
    time_s: float
    memory_mib: int
    watched: bool = False


def main() -> None:
    """Do what stdin says; a bundle that does not pass is an answer, too."""
    if not (line := sys.stdin.buffer.readline()):  # who began it ended before it could say for what
        return
    task = Task(**json.loads(line))
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is not the answer
    _bind(task)
    try:
        answer = _answer(task)
    except MemoryError:
        answer = {"bundle": "fails", "code": "memory", "what": "", "mend": ""}  # the parent has the words for it
    _say(answer, out)


def _say(answer: dict[str, Any], out: int) -> None:
    os.write(out, json.dumps(answer).encode() + b"\n")


def _bind(task: Task) -> None:
    """Take from this process what it does not need."""
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = ctypes.c_ulong(0)
    for option, value in ((PR_SET_PDEATHSIG, signal.SIGKILL), (PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, ctypes.c_ulong(value), nothing, nothing, nothing) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if os.getppid() != task.parent:  # it ended before its end could be told
        sys.exit()
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # for the whole service: that is for the parent to heed
        signal.signal(sent, signal.SIG_IGN)
    cpu_s = int(task.time_s * max(1, task.threads)) + 1
    path = Path(task.bundle)
    written = (path.stat().st_size if path.is_file() else 0) + SPARE_BYTES
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, cpu_s, spare=CPU_SPARE_S)
    _limit(resource.RLIMIT_NOFILE, 256)
    _limit(resource.RLIMIT_FSIZE, written)
    if not task.watched:
        _limit(resource.RLIMIT_DATA, (BARE_MIB + task.memory_mib) * MIB)
    os.nice(NICE)
    with suppress(OSError):  # where /proc may not be written
        Path("/proc/self/oom_score_adj").write_text(KILL_FIRST)


def _limit(kind: int, most: int, *, spare: int = 0) -> None:
    """Bind it so that nothing loosens it again; ``spare`` more ends the process without a word."""
    _, hard = resource.getrlimit(kind)
    soft, hard = (each if hard == resource.RLIM_INFINITY else min(each, hard) for each in (most, most + spare))
    resource.setrlimit(kind, (soft, hard))


def _answer(task: Task) -> dict[str, Any]:
    """Load the libraries, bind the memory, and only then read the bundle."""
    from tinysight_contract.bundle import Bundle  # noqa: PLC0415 -- native, and so after `_bind`
    from tinysight_edge import preprocess  # noqa: F401, PLC0415 -- brings OpenCV, which counts as a library
    from tinysight_edge.choice import choose  # noqa: PLC0415 -- see above
    from tinysight_edge.engines import find_runtime  # noqa: PLC0415 -- see above

    try:
        find_runtime()
    except RuntimeLoadError as error:
        return _refused("runtime", error)
    bare_mib = _memory_mib("VmRSS")
    _bind_memory(task)
    try:
        bundle = Bundle.open(Path(task.bundle))
        if task.scheme is not None and task.scheme not in [each.scheme for each in bundle.manifest.variants]:
            return _refused("runtime", _without_variant(bundle, task.scheme))
        model = choose(bundle, scheme=task.scheme, threads=task.threads, engine=task.engine)
        took_ms = sorted(_took_ms(bundle, model, task.time_s * SHARE_FOR_RUNS))
    except RuntimeLoadError as error:
        return _wrong(bundle, task) or _refused("runtime", error)
    except BundleError as error:
        return _refused("malformed", error)
    except TinySightError as error:  # fails after it has been proved
        return _refused("runtime", error)
    return {
        "bundle": "works",
        "variant": model.variant.scheme,
        "engine": model.engine.name,
        "runtime": f"{model.runtime.name} {model.runtime.version}",
        "runs": len(took_ms),
        "p50_ms": took_ms[len(took_ms) // 2],
        "p95_ms": took_ms[-(-len(took_ms) * 95 // 100) - 1],
        "memory_mib": max(0.0, _memory_mib("VmHWM") - bare_mib),
    }


def _bind_memory(task: Task) -> None:
    """From here on the bundle alone takes memory. RLIMIT_DATA counts what is set aside in private, used or not."""
    if not task.watched:
        more_mib = task.memory_mib + SLACK_MIB + STACK_MIB * max(1, task.threads)
        _limit(resource.RLIMIT_DATA, int(_memory_mib("VmData") + more_mib) * MIB)


def _memory_mib(name: str) -> float:
    """A line of this process's status; 0 where the kernel does not tell."""
    with Path("/proc/self/status").open("rb") as lines:
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name.encode() + b":")), 0.0)


def _took_ms(bundle: "Bundle", model: "Model", bound_s: float) -> list[float]:
    """One figure a run, over the golden pictures in turn: at least `RUNS`, fewer when these take too long."""
    import numpy as np  # noqa: PLC0415 -- native, and so after `_bind`

    from tinysight_edge.interpreter import golden_inputs  # noqa: PLC0415 -- see above

    prepare, pictures = _prepare(bundle, model), golden_inputs(bundle)
    took_ms: list[float] = []
    begun_s = time.perf_counter()
    while len(took_ms) < MAX_RUNS:
        np.copyto(model.lend_input(), prepare(pictures[len(took_ms) % len(pictures)]))
        at_s = time.perf_counter()
        model.run_lent()
        now_s = time.perf_counter()
        took_ms.append((now_s - at_s) * 1e3)
        if now_s - begun_s > (PLEASANT_S if len(took_ms) >= RUNS else bound_s) and len(took_ms) >= FEWEST_RUNS:
            break
    return took_ms


def _prepare(bundle: "Bundle", model: "Model") -> "Callable[[NDArray[np.uint8]], NDArray[Any]]":
    from tinysight_edge.preprocess import Preprocessor  # noqa: PLC0415 -- native, and so after `_bind`

    return Preprocessor(bundle.manifest.input, model.variant.input).from_picture


def _wrong(bundle: "Bundle", task: Task) -> dict[str, Any] | None:
    """When no variant is fit: what one that runs answers otherwise than where it was made, or None if none runs."""
    from tinysight_edge.interpreter import Model, self_test  # noqa: PLC0415 -- native, and so after `_bind`

    for variant in bundle.manifest.variants:
        if task.scheme not in {None, variant.scheme}:
            continue
        try:
            model = Model(bundle.read(variant.file), variant, threads=task.threads)
            reason = self_test(bundle, model)
        except TinySightError:
            continue
        if reason is not None:
            what = f"Its {variant.scheme} variant does not answer here as it did where it was made: {reason}."
            mend = "Convert the model again, or update the runtime of the device to the one that it was proved with."
            return {
                "bundle": "fails",
                "code": "wrong",
                "what": what,
                "mend": mend,
                "departing": _departing(bundle, model),
            }
    return None


def _departing(bundle: "Bundle", model: "Model") -> int:
    """How many golden pictures are not answered as they were, of a bundle whose golden vectors fit its manifest."""
    import numpy as np  # noqa: PLC0415 -- native, and so after `_bind`

    from tinysight_edge.interpreter import comparable, departure, golden_inputs  # noqa: PLC0415 -- see above

    manifest, variant, prepare = bundle.manifest, model.variant, _prepare(bundle, model)
    expected = {
        output.name: np.frombuffer(bundle.read(variant.golden[output.name]), output.dtype).reshape(
            -1, *output.shape[1:]
        )
        for output in comparable(manifest, variant)
    }
    departing = 0
    for number, picture in enumerate(golden_inputs(bundle)):
        got = model.run(prepare(picture))
        want = {name: each[number] for name, each in expected.items()}
        departing += departure(manifest, variant, {name: got[name][0] for name in want}, want) is not None
    return departing


def _without_variant(bundle: "Bundle", scheme: str) -> TinySightError:
    has = ", ".join(variant.scheme for variant in bundle.manifest.variants)
    return RuntimeLoadError(
        f"It has no {scheme} variant, which this device is told to run, but {has}.",
        mend="Convert the model with that scheme, too, or take `variant` out of the device's configuration.",
    )


def _refused(code: str, error: TinySightError) -> dict[str, Any]:
    return {"bundle": "fails", "code": code, "what": error.what[:MAX_SAID], "mend": error.mend[:MAX_SAID]}


if __name__ == "__main__":
    main()
