"""What candidates for a bundle are tried on: one run, its pictures, its float model to compare with.

In: converted files.  Out: `Candidate`s with what each does and costs.
"""

from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

from tinysight_contract import manifest as mf
from tinysight_converters.audit import check_int8, tensors
from tinysight_converters.budget import Figures
from tinysight_converters.metadata import with_metadata
from tinysight_converters.proof import Proof, detect_all, prove, time_variants, tuned_threshold
from tinysight_converters.run import Examples, Run
from tinysight_converters.trial import Trial, try_model
from tinysight_edge.interpreter import Model, find_runtime

__all__ = ["Bench", "Candidate", "draft_manifest", "variant_of"]

FULL_INT8: Final = {"int8", "int8-qat"}


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One converted file, tried.

    Attributes:
        scheme: what its numbers are.
        how: it was made, for people.
        content: the flatbuffer, with metadata for other readers.
        trial: what is in it.
        model: loaded.
        proof: on the held-out pictures.
        figures: what it costs.
    """

    scheme: mf.Scheme
    how: str
    content: bytes
    trial: Trial
    model: Model
    proof: Proof
    figures: Figures


class Bench:
    """Tries converted files on the run's pictures.

    Args:
        run: what was trained.
        examples: with which it was not.
        draft: how it is fed and decoded.
        reference: the float32 file.

    Raises:
        ConversionError: the float32 file cannot be run.
        DataError: a picture is missing, broken or changed.
    """

    def __init__(self, run: Run, examples: Examples, draft: mf.Manifest, reference: bytes) -> None:
        self.run, self.examples, self.draft, self.root = run, examples, draft, Path(run.dataset)
        self._reference: Candidate | None = None
        self._told: int | None = None
        self.reference = self._reference = self.try_out("float32", reference, how="as trained")

    def try_out(self, scheme: mf.Scheme, content: bytes, *, how: str) -> Candidate:
        """Load it in a child first, then prove and time it here, in turn with the float model.

        Raises:
            ConversionError: it cannot be run, or is called int8 and holds floating point.
            DataError: a picture is missing, broken or changed.
        """
        trial = try_model(content).loaded()
        if scheme in FULL_INT8:
            check_int8(trial)
        model = Model(content, variant_of(scheme, trial), runtime=find_runtime())
        held = self.examples.calibration
        found = detect_all(model, self.draft, held, self.root)
        threshold = tuned_threshold(found, held, self.draft.task, told=self._told)
        if self._told is None:
            self._told = sum(len(each) > 0 and float(each.scores[0]) >= threshold for each in found)
        content = with_metadata(content, self.draft, threshold=threshold)
        before = self._reference
        proof = prove(
            model,
            self.draft,
            self.examples.test,
            self.root,
            threshold=threshold,
            reference=before.proof if before else None,
        )
        models = {how: model, **({"as trained": before.model} if before else {})}
        figures = Figures(
            metric=proof.metric,
            drop_pt=100 * (before.proof.metric - proof.metric) if before else 0.0,
            kib=len(content) / 1024,
            ms=time_variants(self.draft, models)[how][0],
        )
        return Candidate(scheme, how, content, trial, model, proof, figures)


def draft_manifest(run: Run, *, name: str, version: str, release: int) -> mf.Manifest:
    """The manifest as far as it is known before converting."""
    return mf.Manifest(
        name=name,
        version=version,
        release=release,
        task=run.task,
        labels=run.labels,
        input=run.input,
        decode=mf.CenterNet(stride=run.stride) if run.task == "detect" else mf.Classify(),
        thresholds=mf.Thresholds(score=0.5),
        variants=[],
        golden=mf.Golden(file="golden-input.bin", count=1),
        provenance=mf.Provenance(
            dataset_digest=run.dataset_digest,
            calibration_digest=None,
            seed=run.seed,
            config=run.config,
            tools={**run.tools, "litert": version_of("ai-edge-litert")},
        ),
        files={},
    )


def variant_of(scheme: mf.Scheme, trial: Trial) -> mf.Variant:
    """What the manifest says of a converted file, before it has proved anything.

    Raises:
        ConversionError: its tensors are none that a device understands.
    """
    input_tensor, outputs = tensors(trial)
    return mf.Variant(
        file=f"{scheme}.tflite", scheme=scheme, input=input_tensor, outputs=outputs, runtimes=[], golden={}
    )
