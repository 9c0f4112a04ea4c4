"""Where a variant runs: each is loaded and run on every runtime that a device may have.

In: a file, golden pictures and what they gave here.  Out: a `RuntimeCheck` each, with the runtime's own words when it
fails. The file's own ``min_runtime_version`` is not believed; it says 1.15 of files that 2.14 cannot load.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Manifest, RuntimeCheck, Variant
from tinysight_converters.environments import environment
from tinysight_converters.trial import Trial, try_model
from tinysight_edge.interpreter import departure

__all__ = ["check_runtimes", "old_runtime"]

OLD: Final = "tflite-runtime"
OLD_WHEELS: Final = {  # for 64-bit x86 and for 64-bit ARM
    "tflite-runtime==2.14.0": (
        "195ab752e7e57329a68e54dd3dd5439fad888b9bff1be0f0dc042a3237a90e4d",
        "ce9fa5d770a9725c746dcbf6f59f3178233b3759f09982e8b2db8d2234c333b0",
    ),
    "numpy==1.26.4": (
        "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5",
        "7ab55401287bfec946ced39700c053796e7cc0e3acbef09993a9ad2adba6ca6e",
    ),
}
OLD_NEEDS: Final = (3, 12)
MAX_DETAIL: Final = 500


@cache
def old_runtime() -> tuple[Path | None, str]:
    """A Python that has tflite-runtime 2.14, as 32-bit ARM devices do; or why there is none.

    In an environment of its own, made once, which needs the network and Python 3.11.
    """
    if sys.version_info >= OLD_NEEDS:
        return None, f"{OLD} has no wheel for Python {sys.version_info.major}.{sys.version_info.minor}"
    packages = tuple(
        " ".join((name, *(f"--hash=sha256:{each}" for each in digests))) for name, digests in OLD_WHEELS.items()
    )
    try:
        return environment(OLD, packages), ""
    except ConversionError as error:
        return None, error.what


def check_runtimes(
    content: bytes, manifest: Manifest, variant: Variant, inputs: NDArray[Any], golden: dict[str, NDArray[Any]]
) -> tuple[list[RuntimeCheck], int]:
    """Run a variant on LiteRT and on tflite-runtime 2.14.

    Args:
        content: the file.
        manifest: says how it is decoded.
        variant: its entry in the manifest.
        inputs: (n, ...) golden inputs in its dtype.
        golden: by output name (n, ...), what they gave here.

    Returns:
        A check for each runtime that there is here, and by how many KiB a process grew that ran it on LiteRT.
    """
    trial = try_model(content, inputs=inputs)
    checks = [_judged(trial, manifest, variant, golden)]
    python, _ = old_runtime()
    if python is not None:
        checks.append(_judged(try_model(content, inputs=inputs, runtime=OLD, python=python), manifest, variant, golden))
    return checks, trial.memory_kib


def _judged(trial: Trial, manifest: Manifest, variant: Variant, golden: dict[str, NDArray[Any]]) -> RuntimeCheck:
    reason = trial.error or _departure(trial, manifest, variant, golden) or ""
    return RuntimeCheck(name=trial.runtime, version=trial.version, ok=not reason, detail=reason[:MAX_DETAIL])


def _departure(trial: Trial, manifest: Manifest, variant: Variant, golden: dict[str, NDArray[Any]]) -> str | None:
    signed = [each for signature in trial.signatures.values() for each in signature.outputs]
    index_of = {each.name: str(each.index) for each in (signed if variant.named_by == "signature" else trial.outputs)}
    answers = {name: trial.answers[index_of[name]] for name in golden}
    for number in range(len(next(iter(golden.values())))):
        got, want = ({name: each[number] for name, each in side.items()} for side in (answers, golden))
        if (reason := departure(manifest, variant, got, want)) is not None:
            return f"picture {number}: {reason}"
    return None
