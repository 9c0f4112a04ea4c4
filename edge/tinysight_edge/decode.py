"""Turn a model's raw outputs into detections, by the roles that the manifest names.

In: one array per output, still quantized.  Out: `Detections` in model pixels, strongest first.
Each kind of decoding has a class in `decoders/`; `DECODERS` is the only place that names them.
"""

from collections.abc import Callable
from typing import Any, Final

from tinysight_contract.manifest import CenterNet, Classify, Manifest, Ssd, SsdAnchors, Variant, Yolo
from tinysight_edge.decoders.boxes import Detections, iou_matrix
from tinysight_edge.decoders.centernet import CenterNetDecoder
from tinysight_edge.decoders.classify import ClassifyDecoder
from tinysight_edge.decoders.ssd import SsdAnchorsDecoder, SsdDecoder
from tinysight_edge.decoders.stored import Decoder, Task
from tinysight_edge.decoders.yolo import YoloDecoder

__all__ = ["DECODERS", "Decoder", "Detections", "iou_matrix", "make_decoder"]

DECODERS: Final[dict[type, Callable[[Task[Any]], Decoder]]] = {
    CenterNet: CenterNetDecoder,
    Classify: ClassifyDecoder,
    Ssd: SsdDecoder,
    SsdAnchors: SsdAnchorsDecoder,
    Yolo: YoloDecoder,
}
"""Kind of decoding, as the manifest says it → what does it."""


def make_decoder(manifest: Manifest, variant: Variant, *, min_score: float | None = None) -> Decoder:
    """The decoder that the manifest names, for this variant's tensors.

    Args:
        manifest: names the kind of decoding and its parameters.
        variant: whose outputs will be decoded.
        min_score: instead of the variant's threshold, for evaluation.
    """
    thresholds = manifest.thresholds_of(variant)
    task = Task(
        how=manifest.decode,
        outputs={output.role: output for output in variant.outputs},
        labels=len(manifest.labels),
        width=manifest.input.width,
        height=manifest.input.height,
        score=thresholds.score if min_score is None else min_score,
        iou=thresholds.iou,
    )
    return DECODERS[type(manifest.decode)](task)
