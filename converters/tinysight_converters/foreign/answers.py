"""Whether what a foreign model answers can be what the user says it is.

In: how it is to be decoded, and its outputs: first their shapes, then their numbers.  Out: nothing, or one line that
says what is wrong. A wrong reading of plausible numbers cannot be found here.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.decoding import decode_contradiction
from tinysight_contract.errors import ConfigError, ConversionError
from tinysight_converters.foreign.roles import POST_PROCESS
from tinysight_converters.options import custom_number
from tinysight_converters.trial import TensorFacts
from tinysight_edge.decoders.stored import real

__all__ = ["check_answers", "check_classes", "check_shapes"]

SLACK: Final = 0.01
SIGMOID: Final = "Check --decode, or export the model again with the sigmoid that makes shares of its scores."
Answers = Mapping[mf.Role, NDArray[np.float32]]


def check_shapes(
    how: mf.Decode, roles: Mapping[str, TensorFacts], *, task: str, labels: int, height: int, width: int
) -> None:
    """A device can decode outputs of these shapes; known before the model is run.

    Raises:
        ConversionError: it cannot.
    """
    shapes = {role: each.shape for role, each in roles.items()}
    reason = decode_contradiction(how, shapes, task=task, labels=labels, height=height, width=width)
    if reason is not None:
        raise ConversionError(f"The outputs cannot be decoded: {reason}.", mend="Check --decode, or export it again.")


def check_classes(content: bytes, how: mf.Decode, labels: int) -> None:
    """As many classes as labels, where the post-processing in the file says how many there are.

    Raises:
        ConfigError: there are more, or fewer.
    """
    if not isinstance(how, mf.Ssd):
        return
    classes = custom_number(content, POST_PROCESS, "num_classes")
    if classes is None or classes == labels + how.background:
        return
    mend = f"Give a labels file of {classes - how.background} lines."
    if classes == labels + 1:
        mend = f"Give --background if its class 0 is no label, else a labels file of {classes} lines."
    elif classes == labels:
        mend = f"Leave --background away, or give a labels file of {classes - 1} lines."
    raise ConfigError(f"The file tells {classes} classes apart, and there are {labels} labels.", mend=mend)


def check_answers(manifest: mf.Manifest, raw: Mapping[str, NDArray[Any]]) -> None:
    """What the model answers can be what the user says it is.

    Args:
        manifest: of one variant.
        raw: by output's name (n, ...), as they are stored.

    Raises:
        ConversionError: it answers no numbers, or scores, classes or boxes that are outside of what was said.
    """
    how, outputs = manifest.decode, {each.role: each for each in manifest.variants[0].outputs}
    answers = {role: real(raw[output.name], output) for role, output in outputs.items()}
    for role, numbers in answers.items():
        if not np.isfinite(numbers).all():
            raise ConversionError(
                f"{outputs[role].name} holds what is no number.",
                mend="Check --pixels, or give --pictures it was made for.",
            )
    if isinstance(how, mf.CenterNet):
        _check_shares(answers["heatmap"], outputs["heatmap"], SIGMOID)
    elif isinstance(how, mf.Classify | mf.SsdAnchors):
        if how.activation == "none":
            _check_shares(answers["scores"], outputs["scores"], "Give --activation softmax or --activation sigmoid.")
    elif isinstance(how, mf.Ssd):
        _check_ssd(how, answers, outputs, len(manifest.labels))
    else:
        _check_yolo(how, answers["predictions"], outputs["predictions"], len(manifest.labels))


def _check_ssd(how: mf.Ssd, answers: Answers, outputs: Mapping[mf.Role, mf.Output], labels: int) -> None:
    scores = answers["scores"]
    told = np.arange(scores.shape[1]) < answers["count"].reshape(-1, 1)
    _check_shares(scores[told], outputs["scores"], SIGMOID)
    _check_labels(answers["classes"][told] - how.background, outputs["classes"], labels)


def _check_yolo(how: mf.Yolo, numbers: NDArray[np.float32], output: mf.Output, labels: int) -> None:
    rows = numbers.swapaxes(1, 2) if how.layout == "channels-first" else numbers
    scores = rows[..., 4:]
    if how.layout == "end-to-end":
        rows = rows[rows[..., 4] > 0]  # the others only fill the table up
        scores, classes = rows[:, 4], rows[:, 5]
        if (np.abs(classes - np.rint(classes)) > SLACK + output.scale / 2).any():
            raise ConversionError(f"{output.name} holds no whole numbers as classes.", mend="Check --layout.")
        _check_labels(classes, output, labels)
    _check_shares(scores, output, SIGMOID)
    reach = float(rows[..., :4].max(initial=0.0))
    if reach > 0 and (how.units == "normalized") != (reach <= 2.0):
        raise ConversionError(
            f"The boxes of {output.name} reach {reach:.3g} and are not {how.units}.",
            mend="Give the other one of --units.",
        )


def _check_shares(scores: NDArray[np.float32], output: mf.Output, mend: str) -> None:
    """Integers may be off by a step."""
    if not scores.size:
        return
    low, high, slack = float(scores.min()), float(scores.max()), SLACK + output.scale
    if not -slack <= low <= high <= 1 + slack:
        raise ConversionError(f"{output.name} goes from {low:.3g} to {high:.3g} and holds no shares.", mend=mend)


def _check_labels(classes: NDArray[np.float32], output: mf.Output, labels: int) -> None:
    highest = float(classes.max(initial=0.0))
    if highest > labels - 0.5:
        raise ConversionError(
            f"{output.name} tells class {highest:.0f}, {labels} labels go up to {labels - 1}.",
            mend="Check the labels file, or --background.",
        )
