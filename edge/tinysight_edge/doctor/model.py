"""Check of the model: the bundle is whole, a variant passes its self-test here, and how fast it is."""

import statistics
import time
from typing import Final

from tinysight_contract.bundle import Bundle
from tinysight_edge.choice import choose
from tinysight_edge.doctor.result import Figure, Result, ok, skip, warn
from tinysight_edge.doctor.subject import Subject
from tinysight_edge.interpreter import golden_inputs
from tinysight_edge.preprocess import Preprocessor
from tinysight_edge.store import Store

__all__ = ["model"]

RUNS: Final = 100
MEASURE_S: Final = 2.0
SLOW_MS: Final = 500.0


def model(subject: Subject) -> Result:
    """Load it as the agent does, and run its golden picture again and again.

    Raises:
        TinySightError: the bundle is damaged, or no variant runs here as it did where it was made.
    """
    named = subject.model
    if named is None:
        return skip("No model is named.", "Give --bundle, --store or --config.")
    bundle = Bundle.open(named.bundle) if named.bundle is not None else None
    if bundle is None:
        if named.store is None:
            return skip("No model is named.", "Give --bundle, --store or --config.")
        bundle = Store(named.store).active()
    manifest = bundle.manifest
    loaded = choose(bundle, scheme=named.scheme, threads=named.threads, engine=named.engine)
    tensor = Preprocessor(manifest.input, loaded.variant.input).from_picture(golden_inputs(bundle)[0])
    took_ms: list[float] = []
    until_s = time.perf_counter() + MEASURE_S
    while len(took_ms) < RUNS and (not took_ms or time.perf_counter() < until_s):
        begun_s = time.perf_counter()
        loaded.run(tensor)
        took_ms.append((time.perf_counter() - begun_s) * 1e3)
    middle, worst = statistics.median(took_ms), sorted(took_ms)[int(len(took_ms) * 0.95)]
    figures: dict[str, Figure] = {
        "digest": bundle.digest,
        "variants": [variant.scheme for variant in manifest.variants],
        "scheme": loaded.variant.scheme,
        "engine": loaded.engine.name,
        "choice": list(loaded.choice),
        "p50_ms": round(middle, 3),
        "p95_ms": round(worst, 3),
    }
    about = (
        f"{manifest.name} {manifest.version} ({bundle.digest[:12]}), {loaded.variant.scheme} passes its self-test on "
        f"{loaded.runtime.name} {loaded.runtime.version} ({loaded.engine.name}) "
        f"and takes {middle:.1f} ms, 95 % within {worst:.1f} ms"
    )
    if middle > SLOW_MS:
        mend = "Convert it to int8, take a smaller model, or give it more `threads`."
        return warn(f"{about}; that is slow.", mend, figures)
    return ok(f"{about}.", figures)
