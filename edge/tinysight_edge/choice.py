"""Choose what runs a bundle on this machine: the variant and the engine that pass the self-test and are the fastest.

In: a bundle.  Out: a `Model`, with what was tried and why in ``choice``. Every start measures anew, for some hundredths
of a second; nothing is kept on disk. How accurate a variant is plays no part: who packed it into the bundle has decided
that.
"""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import InferenceError, RuntimeLoadError
from tinysight_contract.manifest import Variant
from tinysight_edge.compiled import Accelerator, CompiledEngine, accelerators, rehearse
from tinysight_edge.engines import Engine, InterpreterEngine, Runtime, edge_tpu, find_runtime, has_edge_tpu_code
from tinysight_edge.interpreter import Model, prove

__all__ = ["EngineName", "choose", "is_better", "scheme_of"]

log = logging.getLogger(__name__)

EngineName = Literal["auto", "interpreter", "compiled-model", "edgetpu"]
MAX_RUNS: Final = 15
MIN_RUNS: Final = 3
MAX_MEASURE_S: Final = 0.1
MUST_GAIN: Final = 0.9  # two engines on XNNPACK differ by less from start to start; the first, simpler one then stays


def choose(
    bundle: Bundle,
    *,
    scheme: str | None = None,
    threads: int = 1,
    engine: EngineName = "auto",
    heed: Callable[[], None] = lambda: None,
) -> Model:
    """The fastest variant and engine here, warm.

    Args:
        bundle: whose variants are tried, in the manifest's order.
        scheme: only this one.
        threads: of every engine.
        engine: only this one; ``auto`` tries all that can be here.
        heed: called before each call of a runtime, none of which can be interrupted; what it raises ends the choice.

    Raises:
        RuntimeLoadError: nothing works; said is what became of the first.
        BundleError: the bundle has no such variant, or a file does not fit its manifest.
    """
    manifest, runtime = bundle.manifest, find_runtime()
    best: Model | None = None
    refused: RuntimeLoadError | InferenceError | None = None
    told: list[str] = []
    absent: dict[Accelerator, str] = dict(accelerators())
    for variant in manifest.variants if scheme is None else [manifest.variant(scheme)]:
        ways = _ways(
            bundle.read(variant.file),
            variant,
            threads=threads,
            runtime=runtime,
            wanted=engine,
            absent=absent,
            heed=heed,
        )
        for name, make in ways:
            heed()
            try:
                model = Model(b"", variant, runtime=runtime, engine=make())
                prove(bundle, model, heed=heed)
                model.median_ms = _median_ms(model, heed)
            except (RuntimeLoadError, InferenceError) as error:  # such as a driver that fails while it runs
                told.append(f"{variant.scheme} by {name}: {error.what.rstrip('.')}")
                refused = refused or error
                continue
            note = f" ({model.engine.note})" if model.engine.note else ""
            told.append(f"{variant.scheme} by {name}: {model.median_ms:.2f} ms{note}")
            if best is None or is_better(model.median_ms, best.median_ms):
                best = model
    if best is None:
        assert refused is not None  # noqa: S101 -- a manifest has at least one variant, and each has a way
        raise RuntimeLoadError(refused.what, mend=refused.mend) from refused
    best.choice = (*told, f"kept: {best.variant.scheme} by {best.engine.name}")
    return best


def scheme_of(bundle: Bundle, wanted: str | None) -> str | None:
    """The variant to take of a store's bundle: the wanted one, any when it has none of this name."""
    if wanted is None or wanted in {variant.scheme for variant in bundle.manifest.variants}:
        return wanted
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    log.warning("%s has no variant %r; the fastest of its own is taken. Correct `scheme` under [model].", name, wanted)
    return None


def is_better(ms: float, best_ms: float) -> bool:
    """Whether a later engine is worth taking instead of an earlier one."""
    return ms < MUST_GAIN * best_ms


def _ways(
    content: bytes,
    variant: Variant,
    *,
    threads: int,
    runtime: Runtime,
    wanted: EngineName,
    absent: dict[Accelerator, str],
    heed: Callable[[], None],
) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """Names of engines, the simplest first, and what makes each of them or raises why it cannot be.

    ``absent`` holds for each accelerator why it need not be tried, or nothing; what hangs once is noted there.
    """
    plain = partial(InterpreterEngine, content, variant, threads=threads, runtime=runtime)
    if wanted == "edgetpu" or has_edge_tpu_code(content):
        yield "edgetpu", partial(_on_edge_tpu, plain, content, variant, wanted)
        return
    if wanted in {"auto", "interpreter"}:
        yield "interpreter", plain
    if wanted in {"auto", "compiled-model"}:
        compiled = partial(CompiledEngine, content, variant, threads=threads, runtime=runtime)
        yield "compiled-model", partial(_checked, plain, compiled)
        for accelerator in absent:
            made = partial(compiled, accelerator=accelerator)
            yield accelerator, partial(_accelerated, partial(_checked, plain, made), content, accelerator, absent, heed)


def _checked(plain: Callable[[], Engine], compiled: Callable[[], Engine]) -> Engine:
    """The interpreter compares the file with the manifest, down to the scales, which the newer API does not know."""
    plain()
    return compiled()


def _accelerated(
    make: Callable[[], Engine],
    content: bytes,
    accelerator: Accelerator,
    absent: dict[Accelerator, str],
    heed: Callable[[], None],
) -> Engine:
    reason = absent[accelerator]
    if not reason and (refused := rehearse(content, accelerator, heed=heed)) is not None:
        reason = refused.why
        if refused.always:
            absent[accelerator] = reason
    if reason:
        raise RuntimeLoadError(f"{reason}.", mend="Choose another engine.")
    return make()


def _on_edge_tpu(make: Callable[..., Engine], content: bytes, variant: Variant, wanted: EngineName) -> Engine:
    if not has_edge_tpu_code(content):
        why = "is not compiled for the Edge TPU"
    elif wanted not in {"auto", "edgetpu"}:
        why = "is compiled for the Edge TPU and runs on nothing else"
    else:
        return make(delegates=[edge_tpu()])
    raise RuntimeLoadError(f"{variant.file} {why}.", mend="Choose another engine or another variant of the bundle.")


def _median_ms(model: Model, heed: Callable[[], None]) -> float:
    """Of a few runs on the last golden picture, which the self-test has left in the input."""
    took: list[float] = []
    begun_s = time.perf_counter()
    while len(took) < MIN_RUNS or (len(took) < MAX_RUNS and time.perf_counter() - begun_s < MAX_MEASURE_S):
        heed()
        at_s = time.perf_counter()
        model.run_lent()
        took.append((time.perf_counter() - at_s) * 1e3)
    return sorted(took)[len(took) // 2]
