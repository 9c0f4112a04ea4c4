"""The manifest: what a bundle promises, so that a device never has to guess.

Every reader needs only this to feed a model and to read its outputs: how the frame is fitted, which tensor has which
dtype and quantization, which output plays which role, how to decode, which label is which. Outputs are found by
signature name, never by order.

Read with tolerance: unknown fields are ignored, an unknown major version is refused. A reader never rewrites a
manifest, so fields it does not know are kept.
"""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.decoding import (
    Anchors,
    CenterNet,
    Classify,
    Decode,
    Role,
    Ssd,
    SsdAnchors,
    Yolo,
    decode_contradiction,
)
from tinysight_contract.errors import BundleError, ContractError
from tinysight_contract.metrics import Reference

__all__ = [
    "MAX_MANIFEST_BYTES",
    "SCHEMA",
    "Anchors",
    "CenterNet",
    "Classify",
    "Decode",
    "FileRef",
    "Golden",
    "Input",
    "Manifest",
    "Output",
    "Provenance",
    "Reference",
    "Role",
    "RuntimeCheck",
    "Scheme",
    "Ssd",
    "SsdAnchors",
    "Tensor",
    "Thresholds",
    "Variant",
    "Yolo",
    "check_version",
    "parse_manifest",
]

SCHEMA: Final = "1.0"
MAX_MANIFEST_BYTES: Final = 1 << 20

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
FileName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?![\s\S])", description="a plain name, no folders")
]
Side = Annotated[int, Meta(ge=1, le=8192)]
Positive = Annotated[int, Meta(ge=1)]
Label = Annotated[str, Meta(min_length=1, max_length=100)]
_VERSION = r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?"
Version = Annotated[str, Meta(pattern=rf"^{_VERSION}(?![\s\S])")]


Scheme = Literal["float32", "float16", "dynamic", "int8", "int8-mixed", "int8-qat"]
"""What the numbers in a file are.

``float32``: everything; ``float16``: weights in half precision, calculated in float32; ``dynamic``: int8 weights,
calculated in float32 or hybrid; ``int8``: weights and activations, quantized after training; ``int8-mixed``: the same,
but for some layers in float32; ``int8-qat``: weights and activations, trained to be int8.
"""


class FileRef(Struct, frozen=True, kw_only=True):
    """A file of the bundle, by content."""

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]


class Input(Struct, frozen=True, kw_only=True):
    """How a camera frame becomes the model's picture; the same for all variants.

    ``fill`` pads a letterbox. ``mean`` and ``std`` are per channel, on 0..255, and null when the graph normalises.
    """

    height: Side
    width: Side
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    resize: Literal["letterbox", "stretch", "crop"] = "letterbox"
    fill: Annotated[int, Meta(ge=0, le=255)] = 114
    mean: list[float] | None = None
    std: list[float] | None = None


class Tensor(Struct, frozen=True, kw_only=True):
    """One tensor's place in a signature. ``real = scale * (stored - zero_point)``; float tensors have scale 0."""

    name: str
    shape: Annotated[list[Positive], Meta(min_length=1, max_length=8)]
    dtype: Literal["uint8", "int8", "float32"]
    scale: Annotated[float, Meta(ge=0.0)] = 0.0
    zero_point: int = 0


class Output(Tensor, frozen=True, kw_only=True):
    """An output and what it means."""

    role: Role


class RuntimeCheck(Struct, frozen=True, kw_only=True):
    """What happened when a variant was loaded and run on a runtime."""

    name: str
    version: str
    ok: bool
    detail: str = ""


class Thresholds(Struct, frozen=True, kw_only=True):
    """Tuned on the quantized model. ``iou`` is the overlap above which two boxes of a class are the same object."""

    score: Annotated[float, Meta(ge=0.0, le=1.0)]
    iou: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5


class Variant(Struct, frozen=True, kw_only=True):
    """One file of the same model; a device takes the first of the manifest that runs there.

    ``golden`` maps each output's name to the file of its expected raw bytes. ``thresholds`` are those tuned on this
    variant, null when the manifest's hold. ``named_by`` says whether names are those of the signature, or, in a file
    without one, those of the tensors themselves.
    """

    file: FileName
    scheme: Scheme
    input: Tensor
    outputs: Annotated[list[Output], Meta(min_length=1, max_length=16)]
    runtimes: list[RuntimeCheck]
    golden: dict[str, FileName]
    thresholds: Thresholds | None = None
    named_by: Literal["signature", "tensor"] = "signature"


class Golden(Struct, frozen=True, kw_only=True):
    """What a device checks itself with: ``count`` uint8 pictures (height, width, channels), one after another."""

    file: FileName
    count: Annotated[int, Meta(ge=1, le=64)]


class Provenance(Struct, frozen=True, kw_only=True):
    """Where the model came from; what is null is not known, as of a model that was trained elsewhere."""

    dataset_digest: Sha256 | None
    calibration_digest: Sha256 | None
    seed: int | None
    config: dict[str, Any]
    tools: dict[str, str]


class Manifest(Struct, frozen=True, kw_only=True):
    """All that a bundle promises. ``files`` names every member besides the manifest itself.

    ``reference`` is what the model found in its test pictures, null of one whose maker did not say.
    """

    schema: Annotated[str, Meta(pattern=r"^\d+\.\d+(?![\s\S])")] = SCHEMA
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(?![\s\S])")]
    version: Version
    release: Annotated[int, Meta(ge=0)]
    task: Literal["detect", "classify"]
    labels: Annotated[list[Label], Meta(min_length=1, max_length=10000)]
    input: Input
    decode: Decode
    thresholds: Thresholds
    variants: Annotated[list[Variant], Meta(min_length=1, max_length=16)]
    golden: Golden
    reference: Reference | None = None
    provenance: Provenance
    files: dict[FileName, FileRef]

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, indented, one final newline."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"

    def thresholds_of(self, variant: Variant) -> Thresholds:
        """Those tuned on this variant, or those of all."""
        return variant.thresholds or self.thresholds

    def variant(self, scheme: str) -> Variant:
        """The variant with this scheme.

        Raises:
            BundleError: the bundle has none.
        """
        for variant in self.variants:
            if variant.scheme == scheme:
                return variant
        raise BundleError(
            f"{self.name} {self.version} has no variant {scheme!r}.",
            mend=f"Choose one of: {', '.join(v.scheme for v in self.variants)}.",
        )


def check_version(text: str, *, what: str) -> str:
    """Return ``text`` if it may be the version of a model.

    Raises:
        ContractError: it is not written as 1.2.3, with or without more after a ``-`` or a ``+``.
    """
    if re.fullmatch(_VERSION, text) is None:
        raise ContractError(f"{what} {text!r} is no version.", mend="Write it as 1.2.3.")
    return text


class _Head(Struct):
    schema: str = ""


def parse_manifest(raw: bytes) -> Manifest:
    """Read and check a manifest.

    Raises:
        BundleError: too large, not JSON, of an unknown major version, not of the expected form, or contradicting
            itself (outputs that do not fit the labels, files that are not listed).
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleError(f"The manifest has {len(raw)} bytes, at most {MAX_MANIFEST_BYTES} are read.", mend=_AGAIN)
    try:
        head = msgspec.json.decode(raw, type=_Head)
        if head.schema.split(".")[0] != SCHEMA.split(".")[0]:
            raise BundleError(
                f"The manifest has schema {_short(head.schema)!r}, this runtime reads {SCHEMA.split('.')[0]}.x.",
                mend="Update TinySight, or convert the bundle again with a matching version.",
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"The manifest cannot be read: {_short(str(error))}.", mend=_AGAIN) from error
    if (reason := contradiction(manifest)) is not None:
        raise BundleError(f"The manifest contradicts itself: {_short(reason)}.", mend=_AGAIN)
    return manifest


def _short(text: str) -> str:
    """What may stand in an error, which travels over MQTT; names in a manifest have no limit."""
    return text if len(text) <= 300 else f"{text[:300]}…"


_AGAIN = "Convert the model again, or copy the bundle again from where it was made."


def contradiction(manifest: Manifest) -> str | None:
    """Why the manifest cannot be true, or None. No I/O."""
    if len(set(manifest.labels)) != len(manifest.labels):
        return "a label stands twice"
    channels = 1 if manifest.input.color == "GRAY" else 3
    if any(stats is not None and len(stats) != channels for stats in (manifest.input.mean, manifest.input.std)):
        return f"mean and std need {channels} values"
    if manifest.input.std is not None and 0.0 in manifest.input.std:
        return "std holds a zero"
    if manifest.golden.file not in manifest.files:
        return f"{manifest.golden.file} is used and not listed in files"
    for variant in manifest.variants:
        if (reason := _variant_contradiction(manifest, variant, channels)) is not None:
            return f"{variant.file}: {reason}"
    return None


def _tensor_contradiction(tensor: Tensor) -> str | None:
    if tensor.dtype == "float32":
        return f"{tensor.name} is float and has a scale" if tensor.scale else None
    low, high = (0, 255) if tensor.dtype == "uint8" else (-128, 127)
    if tensor.scale <= 0 or not low <= tensor.zero_point <= high:
        return f"{tensor.name} has scale {tensor.scale} and zero point {tensor.zero_point}, which {tensor.dtype} cannot"
    return None


def _variant_contradiction(manifest: Manifest, variant: Variant, channels: int) -> str | None:
    side = (manifest.input.height, manifest.input.width)
    want_input = [1, *side, channels] if manifest.input.layout == "NHWC" else [1, channels, *side]
    if variant.input.shape != want_input:
        return f"it takes {variant.input.shape}, the input is {want_input}"
    for tensor in (variant.input, *variant.outputs):
        if (reason := _tensor_contradiction(tensor)) is not None:
            return reason
    if sorted(variant.golden) != sorted(output.name for output in variant.outputs):
        return "it lacks golden outputs"
    missing = sorted({variant.file, *variant.golden.values()} - set(manifest.files))
    return f"{missing[0]} is used and not listed in files" if missing else _output_contradiction(manifest, variant)


def _output_contradiction(manifest: Manifest, variant: Variant) -> str | None:
    by_role = {output.role: output for output in variant.outputs}
    if len(by_role) != len(variant.outputs):
        return "two outputs play one role"
    return decode_contradiction(
        manifest.decode,
        {role: output.shape for role, output in by_role.items()},
        task=manifest.task,
        labels=len(manifest.labels),
        height=manifest.input.height,
        width=manifest.input.width,
    )
