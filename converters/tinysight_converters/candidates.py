"""The ways to make a variant of a run, and the order in which to try them when a budget fails.

In: a run and a `Wish`.  Out: `Candidate`s, made and tried when they are asked for.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tinysight_contract import manifest as mf
from tinysight_contract.errors import ConfigError, ConversionError
from tinysight_converters.bench import Bench, Candidate
from tinysight_converters.budget import Budget
from tinysight_converters.calibration import choose_calibration, fit_examples, read_calibration
from tinysight_converters.graph import read_graph
from tinysight_converters.ladder import Rung
from tinysight_converters.lint import lint_graph
from tinysight_converters.run import MODEL, QAT, Examples, Run
from tinysight_converters.tflite import LayerError, Recipe, convert_model

__all__ = ["SCHEMES", "Maker", "Wish"]

SCHEMES: Final[tuple[mf.Scheme, ...]] = ("int8-qat", "int8", "int8-mixed", "dynamic", "float16", "float32")
"""What a device takes first stands first."""
WORST_LAYERS: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be made.

    Attributes:
        name: of the model.
        version: of the model, ``1.2.3``.
        release: rises with each bundle of this name.
        schemes: of the variants.
        budget: what the variant that a device takes first may cost; None: anything.
        keep_float: Keras layers that int8 leaves in float32.
        calibration: a set of one's own instead of the run's.
    """

    name: str
    version: str
    release: int
    schemes: tuple[mf.Scheme, ...] = ("int8",)
    budget: Budget | None = None
    keep_float: tuple[str, ...] = ()
    calibration: Path | None = None


class Maker:
    """Makes candidates of one run, each when it is asked for.

    Args:
        folder: of the run.
        run: what was trained.
        examples: with which it was not.
        draft: how it is fed and decoded.
        wish: what is to be made.
        say: told what is being done.

    Raises:
        ConversionError: the converter fails.
        DataError: a picture is missing, broken or changed, or the calibration set cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        run: Run,
        examples: Examples,
        draft: mf.Manifest,
        wish: Wish,
        *,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.run, self.examples, self.draft, self.wish, self.say = folder, run, examples, draft, wish, say
        self.root = Path(run.dataset)
        if wish.keep_float and "int8" not in wish.schemes:
            raise ConfigError("--keep-float is of int8.", mend="Add int8 to --scheme, or leave it out.")
        if wish.calibration is None:
            self.calibration = choose_calibration(examples.calibration, self.root, run.input)
        else:
            held_out = fit_examples(examples.test, self.root, run.input)
            self.calibration = read_calibration(wish.calibration, run.input, held_out=held_out)
        say(f"Calibrating with pictures: {self.calibration.source}")
        self._backed_off: list[bytes] = []
        self.schemes = {"int8-mixed" if wish.keep_float and each == "int8" else each for each in wish.schemes}
        plain = [scheme for scheme in ("float32", "int8", "float16", "dynamic") if scheme in {"float32", *self.schemes}]
        say(f"Converting to {', '.join(plain)}")
        converted = convert_model(
            folder / MODEL,
            self.calibration.pictures,
            [Recipe(scheme=scheme) for scheme in plain],
            layers=bool(self.schemes & {"int8", "int8-mixed", "int8-qat"}),
        )
        self.layers = converted.layers
        self._plain = dict(zip(plain, converted.files, strict=True))
        self.findings = lint_graph(read_graph(self._plain["float32"]))
        for each in self.findings:
            say(f"{each.level}: {each.line} {each.mend}")
        say(f"Proving on {len(examples.test)} held-out pictures with the device's own code")
        self.bench = Bench(run, examples, draft, self._plain["float32"])

    def make(self, scheme: mf.Scheme) -> Candidate:
        """The variant as it was asked for."""
        if scheme == "float32":
            return self.bench.reference
        if scheme == "int8-qat":
            return self._trained(self.folder / QAT)
        if scheme == "int8-mixed":
            asked = self._named(self.wish.keep_float)
            return self._mixed(asked, self._mixed_files([asked])[0])
        return self.bench.try_out(scheme, self._plain[scheme], how="as converted")

    def rungs(self, first: Candidate) -> Iterator[Rung]:
        """Ways to mend a drop, the cheapest first."""
        yield Rung(first.scheme, lambda: first)
        if first.scheme not in {"int8", "int8-mixed"}:
            return
        if first.scheme == "int8":
            yield Rung("better calibration", self._least_error)
        for number, worst in enumerate(self._worst()):
            names = ", ".join(each.layer for each in worst[:3]) + (", ..." if len(worst) > 3 else "")
            yield Rung(f"{len(worst)} in float: {names}", partial(self._in_float, number))
        yield Rung("trained for int8", self._fine_tuned, slow=True)

    def _worst(self) -> list[list[LayerError]]:
        """What stays in float step by step, and what was asked for stays so anyway."""
        asked = self._named(self.wish.keep_float)
        ranked = sorted((each for each in self.layers if each not in asked), key=lambda each: -each.noise)
        return [asked + ranked[:count] for count in WORST_LAYERS if count < len(ranked)]

    def _least_error(self) -> Candidate:
        recipe = Recipe(scheme="int8", ranges="mse")
        (content,) = convert_model(self.folder / MODEL, self.calibration.pictures, [recipe]).files
        return self.bench.try_out("int8", content, how="ranges of least error")

    def _in_float(self, number: int) -> Candidate:
        """One of the steps with the worst layers in float; all are converted at the first call."""
        worst = self._worst()
        if not self._backed_off:
            self._backed_off = self._mixed_files(worst)
        return self._mixed(worst[number], self._backed_off[number])

    def _mixed_files(self, kept: list[list[LayerError]]) -> list[bytes]:
        recipes = [Recipe(scheme="int8-mixed", keep_float=[each.tensor for each in layers]) for layers in kept]
        return convert_model(self.folder / MODEL, self.calibration.pictures, recipes).files

    def _mixed(self, layers: list[LayerError], content: bytes) -> Candidate:
        return self.bench.try_out("int8-mixed", content, how=f"in float: {', '.join(each.layer for each in layers)}")

    def _trained(self, model: Path) -> Candidate:
        if not model.is_file():
            raise ConversionError(
                f"{self.folder} was not trained for int8.", mend="Do so with `tinysight train DATA --out RUN --qat`."
            )
        (content,) = convert_model(model, self.calibration.pictures, [Recipe(scheme="int8-qat")]).files
        return self.bench.try_out("int8-qat", content, how="trained for int8")

    def _fine_tuned(self) -> Candidate:
        """By the trainer's own command, in a copy of the run, unless the run was trained for int8 already."""
        if (self.folder / QAT).is_file():
            return self._trained(self.folder / QAT)
        self.say("Training it for int8")
        with tempfile.TemporaryDirectory(prefix="tinysight-qat-") as name:
            copy = Path(name) / "run"
            copy.mkdir()
            for path in (each for each in self.folder.iterdir() if each.is_file()):
                shutil.copy(path, copy)
            command = [sys.executable, "-P", "-m", "tinysight_deploy", "train", self.run.dataset]
            done = subprocess.run(
                [*command, "--out", str(copy), "--qat", "--quiet"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
                raise ConversionError(
                    f"The training for int8 failed: {lines[-1].removeprefix('error: ')}", mend="See what it says."
                )
            return self._trained(copy / QAT)

    def _named(self, wanted: tuple[str, ...]) -> list[LayerError]:
        known = {each.layer for each in self.layers}
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(
                f"--keep-float: the int8 model has no layer {unknown[0]!r}.",
                mend=f"It has {', '.join(sorted(known))}.",
            )
        return [each for each in self.layers if each.layer in wanted]
