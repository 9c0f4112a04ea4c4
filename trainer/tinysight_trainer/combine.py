"""Several models for the work of one: teachers, their common answer, and a student that learns from it.

In: a data set and a `Config` with ``ensemble``.  Out: trained teachers, each in a folder of its own that resumes like
any training; with ``distill`` also the student without its teachers, to compare with. `compare_models` says what it was
worth on pictures that none of them has seen.
Sources: G. Hinton et al., arXiv 1503.02531; teachers answer for the very picture that the student sees, after L. Beyer
et al., arXiv 2106.05237.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
from msgspec.structs import replace

from tinysight_contract.files import replace_file
from tinysight_converters.run import MODEL, Example, Run
from tinysight_trainer.config import Config
from tinysight_trainer.fit import Fitted, save_model
from tinysight_trainer.loop import Progress
from tinysight_trainer.scores import KerasModel, figures_of

__all__ = ["COMPARED", "compare_models", "train_teachers"]

COMPARED: Final = "combined.json"


def train_teachers(fit_one: Callable[..., Fitted], config: Config, out: Path) -> list[Any]:
    """Train ``ensemble`` teachers, larger than the model and each with dice of its own; what is done is kept.

    Args:
        fit_one: `fit` with its data.
        config: of the run.
        out: the run folder.

    Returns:
        Keras models.
    """
    plain = replace(config, ensemble=0, distill=False)
    teachers = []
    for number in range(1, config.ensemble + 1):
        scale = config.scale if config.model == "lite0" else min(config.scale * config.teacher_scale, 4.0)
        own = replace(plain, seed=(config.seed + 1000 * number) % 2**32, scale=scale)
        teachers.append(_trained(fit_one, own, out / f"teacher-{number}"))
    if config.distill:
        _trained(fit_one, plain, out / "alone")
    return teachers


def _trained(fit_one: Callable[..., Fitted], config: Config, out: Path) -> Any:  # noqa: ANN401 -- Keras has no types
    if (out / MODEL).is_file():
        return keras.models.load_model(out / MODEL, compile=False, safe_mode=True)
    fitted = fit_one(config, out, teachers=[], what=out.name)
    save_model(fitted.model, out)
    return fitted.model


def compare_models(
    run: Run,
    out: Path,
    teachers: list[Any],
    model: Any,  # noqa: ANN401 -- Keras has no types
    test: list[Example],
    *,
    progress: Progress,
) -> dict[str, float]:
    """How good each teacher, all together, the model alone and the model are on the test pictures.

    Writes ``combined.json``. Returns the figures of the ensemble and of the model alone, by name.
    """
    progress.say(f"Comparing all on {len(test)} pictures that none of them has seen")
    named: dict[str, list[Any]] = {f"teacher-{number}": [teacher] for number, teacher in enumerate(teachers, start=1)}
    named["ensemble"] = teachers
    if (out / "alone" / MODEL).is_file():
        named["alone"] = [keras.models.load_model(out / "alone" / MODEL, compile=False, safe_mode=True)]
    named["distilled" if run.config["distill"] else "model"] = [model]
    rows = {}
    for name, models in named.items():
        rows[name] = {
            "params": float(sum(each.count_params() for each in models)),
            **figures_of(run, KerasModel(run, models).find_all(test, Path(run.dataset)), test),
        }
    replace_file(out / COMPARED, msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    return {f"{name}_{key}": value for name, row in rows.items() for key, value in row.items() if key != "params"}
