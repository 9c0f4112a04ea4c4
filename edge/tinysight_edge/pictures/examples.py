"""Hard examples on disk, in a form that ``tinysight data import FOLDER`` takes.

In: pictures and what the model proposes for them.  Out: a bounded folder of COCO's form::

    examples/annotations.json                          made of what the pictures say; made again when it is missing
    examples/images/<device>/<camera>/<when>-<reason>.jpg   each says itself what the model saw (`jpeg`)

Every picture is marked as not labelled: the boxes are a model's proposals, and nobody trains on them unseen.
A near-duplicate of one that was kept lately is passed over. Used by one thread (that of `pictures`).
"""

import math
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.files import replace_file
from tinysight_contract.messages import Detection, FrameSize, ModelRef
from tinysight_contract.scalars import Id, Time
from tinysight_edge.pictures.doubts import Reason
from tinysight_edge.pictures.jpeg import MAX_COMMENT_BYTES, read_comment, write_jpeg
from tinysight_edge.pictures.ring import Ring

__all__ = ["ANNOTATIONS", "MAX_PROPOSALS", "Example", "Examples", "coco"]

Image = NDArray[np.uint8]

ANNOTATIONS: Final = "annotations.json"
SCHEMA: Final = 1
MAX_PROPOSALS: Final = 200  # the strongest; more do not fit a JPEG's comment
INDEX_SHARE: Final = 1 / 8  # of what may be kept: room for annotations.json, twice while it is replaced
QUALITY: Final = 95
THUMB_WH: Final = (64, 48)
RECENT: Final = 256
MOVED_LEVELS: Final = 24  # of 255
MOVED_SHARE: Final = 0.004  # of the thumbnail: an object of a sixteenth of the frame's width and height


class Example(Struct, frozen=True, kw_only=True):
    """What a kept picture shows and why it was kept, written into the file itself.

    Attributes:
        task: of the model; boxes of a classifier mean the whole picture.
        detections: what the model proposes, strongest first.
    """

    site: Id
    device: Id
    camera: Id
    captured_at: Time
    reason: Reason
    frame: FrameSize
    model: ModelRef
    task: str
    detections: list[Detection]


class Examples:
    """The folder of examples.

    Args:
        ring: its pictures, in ``images`` below the folder of ``annotations.json``.
        index_bytes: no more than so much in ``annotations.json``; the oldest pictures go when it would hold more.
    """

    def __init__(self, ring: Ring, *, index_bytes: int) -> None:
        self.ring, self._index, self._index_bytes = ring, ring.folder.parent / ANNOTATIONS, index_bytes
        self._said: dict[str, Example] = {}
        self._thumbs: deque[tuple[str, NDArray[np.int16]]] = deque(maxlen=RECENT)
        self.unwritten = 0

    def open(self) -> None:
        """Read what is there; ``annotations.json`` is written again if pictures came or went without it.

        Raises:
            OSError: the disk is broken or not writable.
        """
        self.ring.open()
        for key in self.ring.keys:
            if not (path := self.ring.path(key, ".jpg")).is_file():
                continue  # somebody else's file; it counts, and goes when its time comes
            with path.open("rb") as file:
                said = read_comment(file.read(MAX_COMMENT_BYTES + 4096), Example)
            if said is not None:
                self._said[key] = said
        if self._index.exists() and self._index.stat().st_size > self._index_bytes:
            self._index.unlink()  # of when more might be kept
        self.write_index()

    def put(self, image: Image, said: Example) -> bool:
        """Keep a picture; False when it looks like one that was kept lately.

        Raises:
            OSError: the disk is full or broken.
        """
        thumb = cv2.resize(image, THUMB_WH, interpolation=cv2.INTER_AREA).mean(axis=2).astype(np.int16)
        if any(camera == said.camera and _alike(thumb, known) for camera, known in self._thumbs):
            return False
        when = f"{said.captured_at:%Y%m%dT%H%M%S}{said.captured_at.microsecond // 1000:03d}Z"
        key = f"{said.device}/{said.camera}/{when}-{said.reason}-{secrets.token_hex(2)}"
        for gone in self.ring.put(key, {".jpg": write_jpeg(image, said, quality=QUALITY)}):
            self._said.pop(gone, None)
        self._said[key] = said
        self._thumbs.append((said.camera, thumb))
        self.unwritten += 1
        return True

    def write_index(self) -> None:
        """Write ``annotations.json`` as the pictures are now.

        Raises:
            OSError: the disk is full or broken; it is then as it was.
        """
        while len(index := msgspec.json.encode(coco(self._said))) > self._index_bytes and self._said:
            least = math.ceil(len(self._said) * (1 - self._index_bytes / len(index)))
            for key in list(self._said)[:least]:
                self.ring.drop(key)
                del self._said[key]
        replace_file(self._index, index)
        self.unwritten = 0


def _alike(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    return float((np.abs(one - other) > MOVED_LEVELS).mean()) < MOVED_SHARE


def coco(said: Mapping[str, Example]) -> dict[str, Any]:
    """COCO's form, with the keys more that TinySight's own data sets have, and what the edge knows besides.

    Args:
        said: by the picture's path below ``images``, without its ending, what it says.
    """
    labels = sorted({(each.class_id, each.label) for one in said.values() for each in one.detections})
    names = list(dict.fromkeys(label for _, label in labels))
    ids = {label: number for number, label in enumerate(names, start=1)}
    images, annotations = [], list[dict[str, Any]]()
    for number, (key, one) in enumerate(said.items(), start=1):
        width, height = one.frame.width, one.frame.height
        images.append(
            {
                "id": number,
                "file_name": f"{key}.jpg",
                "width": width,
                "height": height,
                "labelled": False,
                "session": f"{one.site}-{one.device}-{one.camera}-{one.captured_at:%Y%m%d}",
                "site": one.site,
                "device": one.device,
                "camera": one.camera,
                "captured_at": one.captured_at,
                "reason": one.reason,
                "model": one.model,
            }
        )
        for each in one.detections:
            x1, y1, x2, y2 = (round(at * full, 2) for at, full in zip(each.box, (width, height) * 2, strict=True))
            made: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[each.label]}
            if one.task != "classify":
                w, h = round(x2 - x1, 2), round(y2 - y1, 2)
                made |= {"bbox": [x1, y1, w, h], "area": round(w * h, 4), "iscrowd": 0}
            annotations.append({**made, "score": each.score})
    return {
        "info": {"tinysight": {"schema": SCHEMA, "source": {"format": "edge"}}},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
    }
