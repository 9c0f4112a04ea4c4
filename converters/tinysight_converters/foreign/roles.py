"""Which output of a foreign file means what.

In: a file's outputs by name, the kind of decoding, and what the user says.  Out: the decoder with its numbers, and an
output for each role. Found by names and shapes where only one reading is possible; else the flag is named that says it.
Nothing is guessed, and no file is opened here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal, cast

import msgspec

from tinysight_contract import manifest as mf
from tinysight_contract.decoding import ANY
from tinysight_contract.errors import ConfigError, ConversionError
from tinysight_converters.trial import Op, TensorFacts

__all__ = ["KINDS", "LAYOUTS", "PRESETS", "Asked", "check_kind", "find_roles", "parse_anchors"]

KINDS: Final = ("centernet", "classify", "ssd", "ssd-anchors", "yolo")
ACTIVATIONS: Final = ("none", "softmax", "sigmoid")
POST_PROCESS: Final = "TFLite_Detection_PostProcess"
POST_PROCESS_ROLES: Final = ("boxes", "classes", "scores", "count")  # the order of the operator's outputs
NOT_DECODED: Final = {
    "poses": ("pose", "poses", "keypoints", "keypoint", "landmarks", "movenet", "posenet"),
    "masks": ("segmentation", "segment", "seg", "masks", "instance-segmentation", "semantic-segmentation", "deeplab"),
    "turned boxes": ("obb", "rotated", "oriented"),
    "depth": ("depth", "midas"),
    "tracks": ("tracking", "track", "reid"),
    "text": ("ocr", "text", "transcription", "captioning"),
    "faces with landmarks": ("blazeface", "face", "retinaface"),
    "anomalies": ("anomaly", "anomalies"),
}
BELONGS: Final = {
    "activation": ("classify", "ssd-anchors"),
    "units": ("yolo",),
    "objectness": ("yolo",),
    "layout": ("yolo",),
    "background": ("classify", "ssd", "ssd-anchors"),
    "anchors": ("ssd-anchors",),
}
"""What the user may say, and of which kinds."""
LAYOUTS: Final = ("channels-first", "channels-last", "end-to-end")
MAX_SUPPRESSED: Final = 1000  # rows of an end-to-end head; the others have thousands
POSE_CHANNELS: Final = 56  # a box, one class, 17 points of x, y and visibility
MASK_CHANNELS: Final = 32

PRESETS: Final = {
    "ssd-mobilenet": mf.Anchors(
        strides=[16, 32, 64, 128, 256, 512],
        min_scale=0.2,
        max_scale=0.95,
        aspect_ratios=[1.0, 2.0, 0.5, 3.0, 0.3333],
        reduce_boxes_in_lowest_layer=True,
    ),
}
"""Anchors by the name of who uses them: TensorFlow's Object Detection API, SSD-MobileNet v1 and v2 on 300 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user says of the outputs, and what the file cannot know.

    Attributes:
        decode: the kind.
        activation: what the host still applies to the scores; None when not said.
        units: of a YOLO's boxes; None when not said.
        objectness: whether a YOLO has a fifth number before its scores; None when not said.
        layout: of a YOLO's output; None when not said, and asked where two fit.
        background: whether the first class is no label; None when not said, which is no, and asked where it fits.
        anchors: of ``ssd-anchors``; None when not said.
        max_objects: no more are told.
        outputs: role to the output's name, where the user names it.
    """

    decode: str
    activation: str | None = None
    units: str | None = None
    objectness: bool | None = None
    layout: str | None = None
    background: bool | None = None
    anchors: mf.Anchors | None = None
    max_objects: int = 100
    outputs: Mapping[str, str] = field(default_factory=dict)


def check_kind(kind: str) -> None:
    """A device has a decoder of this kind.

    Raises:
        ConfigError: it has none, by the name of the task.
    """
    if kind in KINDS:
        return
    known = f"It decodes {', '.join(KINDS)}."
    for what, names in NOT_DECODED.items():
        if kind.lower() in names:
            raise ConfigError(f"TinySight has no decoder for {what}.", mend=known)
    near = get_close_matches(kind, KINDS, n=1)
    raise ConfigError(
        f"There is no decoder {kind!r}.",
        mend=f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(KINDS)}.",
    )


def find_roles(
    found: list[TensorFacts], ops: list[Op], asked: Asked, *, labels: int, height: int, width: int
) -> tuple[mf.Decode, dict[str, TensorFacts]]:
    """The decoder, and the output that plays each of its roles.

    Args:
        found: the file's outputs.
        ops: its operators, to know the post-processing by.
        asked: what the user says.
        labels: how many there are.
        height: of the model's picture.
        width: likewise.

    Raises:
        ConfigError: something must be said that the file does not.
        ConversionError: the outputs do not fit the kind and the labels.
    """
    check_kind(asked.decode)
    for flag, kinds in BELONGS.items():
        if getattr(asked, flag) is not None and asked.decode not in kinds:
            raise ConfigError(f"--{flag} says nothing of {asked.decode}.", mend=f"It is for {', '.join(kinds)}.")
    named = _named(found, asked)
    readings: list[tuple[mf.Decode, dict[str, TensorFacts]]] = []
    refused: ConfigError | None = None
    candidates = _candidates(found, asked, height)
    for how in candidates:
        shapes = how.shapes(labels, height, width)
        if strangers := sorted(set(named) - set(shapes)):
            raise ConfigError(f"{asked.decode} has no role {strangers[0]!r}.", mend=f"It has {', '.join(shapes)}.")
        try:
            roles = _match(found, ops, named, shapes)
        except ConfigError as error:
            refused = error
            continue
        if roles is not None:
            readings.append((how, roles))
    if refused is not None:
        raise refused
    if not readings:
        raise _misfit(found, candidates, asked, labels=labels, height=height, width=width)
    return _only(readings, asked, labels)


def _named(found: list[TensorFacts], asked: Asked) -> dict[str, TensorFacts]:
    by_name = {each.name: each for each in found}
    for role, name in asked.outputs.items():
        if name not in by_name:
            raise ConfigError(f"--output {role}={name}: the file has no output {name!r}.", mend=_listed(found))
    return {role: by_name[name] for role, name in asked.outputs.items()}


def _candidates(found: list[TensorFacts], asked: Asked, height: int) -> list[mf.Decode]:
    """Every decoder of the kind that the file might fit."""
    most = asked.max_objects
    made: list[mf.Decode] = []
    if asked.decode == "centernet":
        strides = sorted({height // each.shape[1] for each in found if len(each.shape) == 4 and each.shape[1]} - {0})
        made += [mf.CenterNet(stride=stride, max_objects=most) for stride in strides]
    elif asked.decode == "classify":
        activation = _activation(asked)
        made += [mf.Classify(activation=activation, background=each) for each in _backgrounds(asked)]
    elif asked.decode == "ssd":
        made.append(mf.Ssd(background=bool(asked.background), max_objects=most))
    elif asked.decode == "ssd-anchors":
        if asked.anchors is None:
            raise ConfigError(
                "Where the boxes of raw SSD heads start from is not in the file.",
                mend="Give --anchors ssd-mobilenet, or --anchors FILE.json; see docs/decoders.md.",
            )
        activation = _activation(asked)
        made += [
            mf.SsdAnchors(anchors=asked.anchors, activation=activation, background=each, max_objects=most)
            for each in _backgrounds(asked)
        ]
    else:
        if asked.units not in {"pixels", "normalized"}:
            raise ConfigError(
                "Whether a YOLO's boxes are in pixels or in shares of the picture is not in the file.",
                mend="Give --units pixels or --units normalized; Ultralytics' exports are normalized.",
            )
        units = cast("Literal['pixels', 'normalized']", asked.units)
        made += [
            mf.Yolo(layout=layout, units=units, objectness=objectness, max_objects=most)
            for layout in _layouts(found, asked)
            for objectness in (False, True)
            if asked.objectness in {None, objectness} and not (objectness and layout == "end-to-end")
        ]
    return made


def _layouts(
    found: list[TensorFacts], asked: Asked
) -> tuple[Literal["channels-first", "channels-last", "end-to-end"], ...]:
    if asked.layout is not None:
        return (cast("Literal['channels-first', 'channels-last', 'end-to-end']", asked.layout),)
    few = any(len(each.shape) == 3 and each.shape[1] <= MAX_SUPPRESSED for each in found)
    return ("channels-first", "channels-last", *(("end-to-end",) if few else ()))


def _backgrounds(asked: Asked) -> tuple[bool, ...]:
    return (False, True) if asked.background is None else (asked.background,)


def _activation(asked: Asked) -> Literal["none", "softmax", "sigmoid"]:
    if asked.activation not in ACTIVATIONS:
        raise ConfigError(
            "Whether the scores are shares already is not in the file.",
            mend=f"Give --activation {', '.join(ACTIVATIONS[:-1])} or {ACTIVATIONS[-1]}: what is still to be applied.",
        )
    return cast("Literal['none', 'softmax', 'sigmoid']", asked.activation)


def _match(
    found: list[TensorFacts], ops: list[Op], named: Mapping[str, TensorFacts], shapes: Mapping[str, list[int]]
) -> dict[str, TensorFacts] | None:
    """The only output for each role; None when one has none.

    Raises:
        ConfigError: several outputs fit a role.
    """
    roles = dict(named)
    by_index = {each.index: each for each in found}
    for op in ops:
        if op.name == POST_PROCESS and tuple(shapes) == POST_PROCESS_ROLES and set(op.outputs) <= set(by_index):
            roles = {role: by_index[index] for role, index in zip(POST_PROCESS_ROLES, op.outputs, strict=True)} | roles
    roles = {each.name: each for each in found if each.name in shapes} | roles
    fitting = {
        role: [each for each in ([roles[role]] if role in roles else found) if _fits(each.shape, shape)]
        for role, shape in shapes.items()
    }
    taken: dict[str, TensorFacts] = {}
    for role in sorted(shapes, key=lambda role: len(fitting[role])):  # the surest first
        left = [each for each in fitting[role] if each not in taken.values()]
        if not left:
            return None
        if len(left) > 1:
            raise ConfigError(
                f"{' and '.join(repr(each.name) for each in left)} may each be {role}.",
                mend=f"Give --output {role}=NAME.",
            )
        taken[role] = left[0]
    return taken


def _fits(shape: list[int], want: list[int]) -> bool:
    return len(shape) == len(want) and all(side in {ANY, got} for got, side in zip(shape, want, strict=True))


def _only(
    readings: list[tuple[mf.Decode, dict[str, TensorFacts]]], asked: Asked, labels: int
) -> tuple[mf.Decode, dict[str, TensorFacts]]:
    """The one way to read the outputs; what can be read in two must be said."""
    how, roles = readings[0]
    layouts = [each.layout for each, _ in readings if isinstance(each, mf.Yolo)]
    if len(readings) > 1:
        raise ConfigError(
            f"{_shown(list(roles.values()))} can be read in {len(readings)} ways with {labels} labels.",
            mend=f"Give --layout {' or '.join(layouts)}; see docs/decoders.md."
            if layouts
            else "Give --output ROLE=NAME.",
        )
    if isinstance(how, mf.Classify | mf.SsdAnchors) and how.background and asked.background is None:
        raise ConfigError(
            f"{roles['scores'].name!r} has {labels + 1} scores for {labels} labels.",
            mend=f"Give --background if its first class is no label, else a labels file of {labels + 1} lines.",
        )
    if isinstance(how, mf.Yolo) and how.objectness and how.layout == "channels-first" and asked.objectness is None:
        raise ConfigError(
            f"{_shown(list(roles.values()))} is a head with objectness, or one of turned boxes, which TinySight does "
            f"not decode; {labels} labels fit both.",
            mend="Give --objectness if the fifth number is one.",
        )
    return how, roles


def _misfit(
    found: list[TensorFacts], candidates: list[mf.Decode], asked: Asked, *, labels: int, height: int, width: int
) -> ConversionError:
    """Why nothing fits, and what the file may be instead."""
    wants = []
    for how in candidates:
        shapes = how.shapes(labels, height, width)
        wants.append(" and ".join(f"{role} {[side or 'n' for side in shape]}" for role, shape in shapes.items()))
    said = f"{_shown(found)} does not fit {asked.decode} with {labels} labels, which needs {' or '.join(wants)}."
    mend = f"Check the labels file, {'--anchors, ' if asked.decode == 'ssd-anchors' else ''}or --decode."
    sides = {side for each in found if len(each.shape) == 3 for side in each.shape[1:]}
    if asked.decode == "yolo" and POSE_CHANNELS in sides:
        mend = f"A head of {POSE_CHANNELS} channels is one of poses, for which TinySight has no decoder."
    elif asked.decode == "yolo" and 4 + labels + MASK_CHANNELS in sides:
        mend = f"A head of 4 + {labels} + {MASK_CHANNELS} channels is one of masks, for which TinySight has no decoder."
    return ConversionError(said, mend=mend)


def _shown(found: list[TensorFacts]) -> str:
    return ", ".join(f"{each.name!r} {each.shape}" for each in found)


def _listed(found: list[TensorFacts]) -> str:
    return f"It has {_shown(found)}."


def parse_anchors(raw: bytes, *, source: str) -> mf.Anchors:
    """Anchors from a JSON file with the fields of `Anchors`.

    Raises:
        ConfigError: it is not of that form.
    """
    try:
        return msgspec.json.decode(raw, type=mf.Anchors)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{source} cannot be read: {error}.", mend="See docs/decoders.md for its fields.") from error
