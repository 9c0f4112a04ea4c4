"""Each rule is broken by a real model, and by no other that only looks like it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysight_contract.errors import ConversionError
from tinysight_converters.graph import read_graph
from tinysight_converters.lint import RULES, Finding, lint_graph
from tinysight_converters.lint_keras import lint_keras
from tinysight_converters.trial import try_model

FOREIGN = {
    "unknown-operator": {"does-not-load", "custom-op"},
    "flex": {"does-not-load", "flex"},
    "crashes": {"does-not-load"},
    "two-inputs": {"several-inputs"},
    "open-size": {"unknown-shape"},
    "open-batch": {"dynamic-batch"},
    "ssd": set[str](),
    "bytes": set[str](),
    "logits": set[str](),
}
"""Files of ``graphs.py`` and what they break."""


def rules(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings}


def lint_file(path: Path) -> list[Finding]:
    content = path.read_bytes()
    return lint_graph(read_graph(content), try_model(content))


def names(table: str) -> list[str]:
    """Of ``habits.py``, read without TensorFlow."""
    text = (Path(__file__).parents[1] / "habits.py").read_text()
    part = text.split(f"\n{table}: ")[1].split("\n}\n")[0]
    return [line.split('"')[1] for line in part.splitlines() if line.startswith('    "')]


@pytest.mark.parametrize("name", names("MODELS"))
def test_a_keras_model_breaks_what_its_layers_break(name: str, habits: ModuleType) -> None:
    make, broken = habits.MODELS[name]
    assert rules(lint_keras(habits.build(make))) == broken


@pytest.mark.parametrize("name", names("FILES"))
def test_a_converted_file_breaks_what_stands_in_it(name: str, habits: ModuleType, habit_files: Path) -> None:
    assert rules(lint_file(habit_files / f"{name}.tflite")) == habits.FILES[name][2]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_breaks_what_stands_in_it(name: str, graphs: Path) -> None:
    assert rules(lint_file(graphs / f"{name}.tflite")) == FOREIGN[name]


def test_no_rule_is_without_a_model_that_breaks_it(habits: ModuleType) -> None:
    tables = [*FOREIGN.values(), *(broken for _, _, broken in habits.FILES.values())]
    assert set().union(*tables) == set(RULES)


def test_a_finding_names_the_place_and_has_the_words_of_its_rule(habits: ModuleType, habit_files: Path) -> None:
    (joined,) = lint_file(habit_files / "yolo-of-scales.tflite")
    assert len(joined.where) == 2, "once for each scale"
    rule = RULES["concat-meanings"]
    assert (joined.level, joined.reason, joined.cost, joined.mend) == (rule.level, rule.reason, rule.cost, rule.mend)
    split = lint_file(habit_files / "gelu.tflite")[0]
    assert [where.split()[0] for where in split.where] == ["GELU"]
    (dense,) = lint_keras(habits.build(habits.MODELS["dense"][0]))
    assert dense.where[0].endswith(f", {16 * 16 * 16 * 40} weights")


def test_errors_come_first(graphs: Path) -> None:
    levels = [rule.level for rule in RULES.values()]
    assert levels == sorted(levels, key=["error", "warning"].index)
    found = [each.rule for each in lint_file(graphs / "flex.tflite")]
    assert found == [rule for rule in RULES if rule in found]


def test_what_the_runtime_says_is_repeated(graphs: Path) -> None:
    (refused, _) = lint_file(graphs / "unknown-operator.tflite")
    assert "NobodysOperator" in refused.where[0]
    (crash,) = lint_file(graphs / "crashes.tflite")
    assert "while" in crash.where[0]


@pytest.mark.parametrize("run", ["detector", "classifier"])
def test_our_own_models_break_nothing(run: str, world: Path) -> None:
    import keras

    assert lint_keras(keras.models.load_model(world / run / "model.keras", compile=False)) == []


def test_lite0_breaks_nothing_alone_or_as_a_backbone() -> None:
    import keras

    from tinysight_trainer.lite0 import lite0_backbone, lite0_classifier

    assert lint_keras(lite0_classifier(64, 64)) == []
    image = keras.Input((64, 64, 3))
    deep = lite0_backbone(64, 64)(image)["stride32"]
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(deep))
    assert lint_keras(keras.Model(image, {"scores": scores})) == []


def test_a_sequential_model_is_read_like_any_other() -> None:
    import keras

    parts = [keras.layers.Conv2D(8, 3, activation="silu", name="early"), keras.layers.LayerNormalization(name="late")]
    found = lint_keras(keras.Sequential([keras.Input((32, 32, 3)), keras.Sequential(parts)]))
    assert [(each.rule, each.where) for each in found] == [("swish", ["early"]), ("float-inside", ["late"])]


def test_what_is_no_graph_of_layers_is_refused_with_a_mend() -> None:
    import keras

    class Own(keras.Model):  # type: ignore[misc]  # Keras has no types
        def call(self, image: Any) -> Any:
            return image

    for model in (Own(), keras.Sequential([keras.layers.Dense(3)])):
        with pytest.raises(ConversionError, match=r"is no graph of layers\. Build it with keras\.Model"):
            lint_keras(model)


def test_a_camera_gives_one_picture_of_a_known_size(habits: ModuleType) -> None:
    import keras

    image, other = keras.Input((None, None, 3)), keras.Input((8, 8, 3))
    assert rules(lint_keras(keras.Model(image, habits.scores(image)))) == {"unknown-shape"}
    both = habits.scores(keras.layers.Add()([habits.conv(image), habits.conv(other)]))
    assert rules(lint_keras(keras.Model([image, other], both))) == {"several-inputs", "unknown-shape"}


def test_the_command_takes_a_run_and_a_bundle(world: Path, belt_bundle: Path, tinysight: Any) -> None:
    for model in (world / "detector", belt_bundle, world / "classifier.bundle"):
        done = tinysight("lint", model)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "Nothing in it is known to suffer from int8.\n"


def test_the_command_takes_a_saved_model(habit_files: Path, tinysight: Any) -> None:
    done = tinysight("lint", habit_files / "flex")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("error: flex: FlexMatrixInverse\n")
    assert f"mend: {RULES['flex'].mend}" in done.stdout


def test_the_command_ends_with_status_1_for_errors_alone(habit_files: Path, tinysight: Any) -> None:
    done = tinysight("lint", habit_files / "yolo-of-scales.tflite", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert [each["rule"] for each in told["findings"]] == ["concat-meanings"]
    assert set(told["findings"][0]) == {"rule", "where", "level", "reason", "cost", "mend"}
    warned = tinysight("lint", habit_files / "nearest.tflite")
    assert (warned.returncode, warned.stderr) == (0, "")
    assert warned.stdout.count("warning: ") == 2


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        pytest.param("none.keras", Path.exists, "There is no", id="missing"),
        pytest.param("a.txt", lambda path: path.write_text("hello"), "is no model", id="a text file"),
        pytest.param("a.tflite", lambda path: path.write_text("hello"), "is no TFLite file", id="a text called tflite"),
        pytest.param("a.bundle", lambda path: path.write_text("hello"), "no bundle", id="a text called bundle"),
        pytest.param("a.keras", lambda path: path.write_bytes(b"PK\3\4" * 99), "Reading", id="half a .keras"),
        pytest.param("folder", lambda path: path.mkdir(), "is no model", id="an empty folder"),
        pytest.param("a folder.tflite", lambda path: path.mkdir(), "is no model", id="a folder called tflite"),
    ],
)
def test_bad_input_is_one_line_with_a_mend(
    name: str, make: Callable[[Path], object], said: str, tmp_path: Path, tinysight: Any
) -> None:
    make(tmp_path / name)
    done = tinysight("lint", name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(done.stderr.split(". ")) >= 2, "what, and what to do"


def test_the_documented_rules_are_those_of_the_code(golden: Callable[[str, bytes], None]) -> None:
    head = (
        "# Lint: what suffers from int8, before it does\n\n"
        "```console\n"
        "$ tinysight lint MODEL   # a run folder, a .keras, a SavedModel, a .tflite or a bundle\n"
        "```\n\n"
        "Status 1 when an error is found, else 0; `--json` for programs. What is measured was measured on small\n"
        "networks of our own, unless another name stands beside it. The table is `RULES` of\n"
        "[`lint.py`](../converters/tinysight_converters/lint.py); `pytest --regen tests/converters/test_lint.py`\n"
        "writes it.\n\n"
        "| rule | level | why | cost | mend |\n|---|---|---|---|---|\n"
    )
    rows = [
        f"| `{name}` | {rule.level} | {rule.reason} | {rule.cost} | {rule.mend} |\n" for name, rule in RULES.items()
    ]
    golden("../../docs/lint.md", (head + "".join(rows)).encode())
