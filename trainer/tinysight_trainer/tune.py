"""START HERE for `tinysight tune`: many trainings, to see what accuracy costs in time and size on a device.

In: a data set, fixed settings and a `Space`.  Out: a study folder. Each trial is an ordinary run folder, so the best
can be converted as it is. Accuracy is that of the int8 model on the validation pictures; the test pictures are never
opened, so that the proof of a later conversion is still honest. (The accuracies of the best are a little too good: they
were chosen among many.)

::

    STUDY/study.json    what is searched on what; what each architecture costs; written first
    STUDY/journal.log   Optuna's; every trial, appended to
    STUDY/trial-0007/   a run folder; of a trial given up or cut short, its checkpoint
    STUDY/trials.csv, pareto.png, tuned.toml

A killed study goes on where it was: the trial that was running keeps its number, its settings and its checkpoint. The
sampler's dice depend on the seed and the trial's number, so being killed does not change what they show.
"""

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import optuna
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, ConversionError, TrainError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Input
from tinysight_converters.run import EXAMPLES, Run, save_run
from tinysight_trainer.config import Config, make_config, to_toml
from tinysight_trainer.curves import draw_pareto
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.ready import check_ready
from tinysight_trainer.fit import HISTORY, fit, prepare, save_model
from tinysight_trainer.int8 import Cost, Int8Model
from tinysight_trainer.loop import CHECKPOINT, Progress, Row
from tinysight_trainer.pictures import Pictures, load_pictures
from tinysight_trainer.search import Space, draw, plain
from tinysight_trainer.study import NAME, STARTS, begin_trial, count_start, open_journal, open_study, taken
from tinysight_trainer.train import describe, sides_of, training_figures
from tinysight_trainer.trials import Point, best_of, comparable, csv_of, falls_behind, with_front

__all__ = ["MEASURES", "TUNED", "tune"]

TUNED: Final = "tuned.toml"
TRIALS: Final = "trials.csv"
PARETO: Final = "pareto.png"
MEASURES: Final = {"detect": "ap50_95", "classify": "accuracy"}
PLAIN_DRAWS: Final = 8  # before the sampler concludes anything

State = optuna.trial.TrialState


def tune(
    data: Dataset,
    fixed: Mapping[str, Any],
    space: Space,
    out: Path,
    *,
    trials: int,
    time_s: float | None,
    progress: Progress,
) -> list[Point]:
    """Search for settings until so many trials have ended, or until it is time to begin no other.

    Args:
        data: the data set.
        fixed: settings of every trial.
        space: what is searched.
        out: the study folder; an existing study of the same goes on.
        trials: of the whole study.
        time_s: no trial is begun later than this; a running one ends as usual. None: no limit.
        progress: is told how it goes.

    Returns:
        All trials that have ended, in their order.

    Raises:
        TrainError: the folder holds something else or is in use, or not one trial finished.
        ConfigError: the fixed settings do not fit the data set.
        DataError: the data set cannot be trained on, or an image is broken or has changed.
        OSError: the disk is full; the study goes on when called again.
    """
    for note in check_ready(data):
        progress.say(note)
    with taken(out):
        study = _Study(data, fixed, space, out, progress)
        points = study.search(trials, time_s)
    if best_of(points) is None:
        why = f" The last: {points[-1].why}." if points else ""
        raise TrainError(f"Not one trial finished.{why}", mend="Narrow the [search], or give more --trials.")
    return points


class _Watch(Progress):
    """Passes on the steps of a trial, and ends it when it is behind."""

    def __init__(self, shown: Progress, behind: Callable[[Row], bool]) -> None:
        self.begin, self.step, self.say = shown.begin, shown.step, shown.say  # type: ignore[method-assign]  # passed on as they are
        self._behind = behind

    def epoch(self, row: Row) -> None:
        if self._behind(row):
            raise optuna.TrialPruned


class _Study:
    def __init__(self, data: Dataset, fixed: Mapping[str, Any], space: Space, out: Path, progress: Progress) -> None:
        self.data, self.fixed, self.space, self.out, self.progress = data, dict(fixed), space, out, progress
        self.task = data.task or "detect"
        self.measure = MEASURES[self.task]
        self.usual = make_config(fixed, task=self.task, source="tune")
        self.sides = sides_of(data)
        self._pictures: tuple[Input, tuple[Pictures, Pictures]] | None = None
        self.held = open_study(out, data, fixed, space)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = open_journal(out)
        self.study = optuna.create_study(
            study_name=NAME,
            storage=self.storage,
            directions=["maximize", "minimize", "minimize"],
            load_if_exists=True,
        )
        if not self.study.trials and (first := plain(space, self.usual)):
            self.study.enqueue_trial(first)

    def points(self) -> list[Point]:
        """All trials that have ended, with their place."""
        held = self.study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED))
        return with_front([msgspec.convert(trial.user_attrs["point"], Point) for trial in held])

    def search(self, trials: int, time_s: float | None) -> list[Point]:
        """One trial after the other; all that have ended."""
        points = self.points()
        begun_s, before = time.monotonic(), len(points)
        while len(points) < trials:
            spent_s = time.monotonic() - begun_s
            if time_s is not None and spent_s >= time_s:
                self.progress.say(f"The time is up; {len(points)} of {trials} trials have ended")
                break
            point = self._tried(self._next(), points)
            points = with_front([*points, point])
            self.write(points)
            spent_s = time.monotonic() - begun_s
            left_s = (trials - len(points)) * spent_s / (len(points) - before)
            if time_s is not None:
                left_s = min(left_s, max(time_s - spent_s, 0.0))
            self.progress.say(f"{self._line(point)}; {self._best(points)}; {_minutes(left_s)} left")
        self.write(points)
        return points

    def _line(self, point: Point) -> str:
        name = f"Trial {point.number:3d}"
        if point.state == "pruned":
            return f"{name}: given up, {point.why}"
        return f"{name}: {self.measure} {point.accuracy:.3f}  {point.int8_ms:.2f} ms  {point.int8_kib:.0f} KiB"

    def _best(self, points: list[Point]) -> str:
        best = best_of(points)
        return "none finished yet" if best is None else f"best {best.accuracy:.3f} (trial {best.number})"

    def _next(self) -> Any:  # noqa: ANN401 -- Optuna's trial
        """The trial that was running when the study was killed, or a new one."""
        trials = self.study.get_trials(deepcopy=False)
        running = [trial.number for trial in trials if trial.state == State.RUNNING]
        number = running[0] if running else sum(trial.state != State.WAITING for trial in trials)
        seed = (self.usual.seed + number) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=PLAIN_DRAWS)
        if not running:
            return self.study.ask()
        study_id = self.storage.get_study_id_from_name(NAME)
        return optuna.trial.Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _tried(self, trial: Any, points: list[Point]) -> Point:  # noqa: ANN401 -- see above
        """Train, convert and measure one trial, and tell Optuna."""
        drawn = draw(self.space, trial)
        folder = self.out / f"trial-{trial.number:04d}"
        accuracy, cost, why = 0.0, None, ""
        try:
            config = make_config({**self.fixed, **drawn}, task=self.task, source=f"trial {trial.number}")
        except ConfigError as error:
            config, why = replace(self.usual, **drawn), error.what
        begin_trial(folder, config)
        if not why:
            accuracy, cost, why = self._outcome(config, folder, trial.number, points)
        history = _history(folder)
        point = Point(
            number=trial.number,
            state="finished" if cost else "pruned",
            config=config,
            drawn=tuple(sorted(drawn)),
            losses=tuple(row["val_loss"] for row in history),
            seconds=history[-1]["seconds"] if history else 0.0,
            why=why.rstrip("."),
        )
        if cost is not None:
            point = replace(point, accuracy=accuracy, int8_ms=cost.int8_ms, int8_kib=cost.int8_kib)
        trial.set_user_attr("point", msgspec.to_builtins(point))
        if cost is not None:
            self.study.tell(trial, [accuracy, cost.int8_ms, cost.int8_kib])
        else:
            self.study.tell(trial, state=State.PRUNED)
        for name in (CHECKPOINT, STARTS):
            (folder / name).unlink(missing_ok=True)
        return point

    def _outcome(
        self, config: Config, folder: Path, number: int, points: list[Point]
    ) -> tuple[float, Cost | None, str]:
        """Accuracy and cost; or no cost, and why the trial was given up."""
        try:
            count_start(folder, len(_history(folder)))
            run = self._trained(config, folder, number, points)
            return *self._measured(config, run, folder), ""
        except optuna.TrialPruned:
            return 0.0, None, "its loss fell behind"
        except (ConversionError, TrainError) as error:
            return 0.0, None, error.what
        except KeyboardInterrupt:
            (folder / STARTS).unlink(missing_ok=True)  # who ends it by hand is not at fault
            raise

    def _trained(self, config: Config, folder: Path, number: int, points: list[Point]) -> Run:
        """Make the trial's folder a run folder, going on from its checkpoint if there is one."""
        peers = [point.losses for point in points if comparable(config, point.config)]

        def behind(row: Row) -> bool:
            return falls_behind(row["val_loss"], round(row["epoch"]), config.epochs, peers)

        keras.utils.clear_session()
        prepare(config)
        spec = Input(height=config.height, width=config.width, color=config.color)
        watch = _Watch(self.progress, behind)
        fitted = fit(
            self.data,
            config,
            folder,
            pictures=self._fitted(spec),
            digest=self.sides.digest,
            progress=watch,
            teachers=[],
            what=f"trial {number}",
        )
        run = describe(self.data, config, spec, training_figures(fitted, config, len(self.sides.learning)))
        replace_file(folder / EXAMPLES, msgspec.json.encode(self.sides.examples))
        save_model(fitted.model, folder)
        save_run(folder, run)
        return run

    def _fitted(self, spec: Input) -> tuple[Pictures, Pictures]:
        """The pictures, read again only when the model's input changes."""
        if self._pictures is None or self._pictures[0] != spec:
            self._pictures = None  # both at once may not fit into memory
            learning, validation = (
                load_pictures(s, self.data.root, spec) for s in (self.sides.learning, self.sides.validation)
            )
            self._pictures = spec, (learning, validation)
        return self._pictures[1]

    def _measured(self, config: Config, run: Run, folder: Path) -> tuple[float, Cost]:
        """Accuracy of the trial's int8 model with the device's own code, and what its architecture costs."""
        validation = self._fitted(run.input)[1]
        chosen = {each.sha256 for each in self.sides.examples.calibration}
        indices = np.array([at for at, each in enumerate(self.sides.validation) if each.sha256 in chosen], np.intp)
        model = Int8Model(run, folder, validation.take(indices))
        key = f"{config.model} {config.width}x{config.height} {config.color} scale {config.scale:.6g}"
        if key not in self.held.costs:
            self.held.costs[key] = model.cost()
            self.held.save(self.out)
        return model.figures(self.sides.validation, self.data.root)[self.measure], self.held.costs[key]

    def write(self, points: list[Point]) -> None:
        """Table, picture and the best settings, each in one step."""
        replace_file(self.out / TRIALS, csv_of(points, measure=self.measure))
        if (best := best_of(points)) is not None:
            replace_file(self.out / TUNED, to_toml(best.config))
            draw_pareto(points, self.out / PARETO, title=f"tune: {self.data.root.name}", measure=self.measure)


def _history(folder: Path) -> list[Row]:
    """The rows of ``history.csv`` so far."""
    if not (folder / HISTORY).is_file():
        return []
    with (folder / HISTORY).open(newline="") as source:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(source)]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
