"""CVAT: "CVAT for images 1.1", one XML file for all images; written with a model's proposals, and read back.

CVAT does not say which images somebody has looked at. So a file of proposals is marked, and refused when it comes back
as it went; and whether an image without labels shows nothing is for the user to say.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import Proposal, pixels
from tinysight_trainer.data.formats.voc import parse_xml
from tinysight_trainer.data.item import Shown

__all__ = ["annotations", "read_labels", "write"]

PROPOSED: Final = "proposed-by-tinysight"


def annotations(data: Dataset, proposals: Mapping[str, Sequence[Proposal]]) -> bytes:
    """All images by name, with the labels they have; those without get what is proposed for them."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    if proposals:
        ET.SubElement(ET.SubElement(root, "meta"), PROPOSED)
    for number, item in enumerate(data.items):
        about = {"id": number, "name": item.name, "width": item.width, "height": item.height}
        image = ET.SubElement(root, "image", {key: str(value) for key, value in about.items()})
        held = [Proposal(shown=each, score=1.0) for each in item.shown] or proposals.get(item.name, ())
        for each in held:
            _add(image, each, source="manual" if item.shown else "auto")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(image: ET.Element, each: Proposal, *, source: str) -> None:
    shown = each.shown
    about = {"label": shown.label, "source": source}
    if shown.box is None:
        ET.SubElement(image, "tag", about)
        return
    sides = zip(("xtl", "ytl", "xbr", "ybr"), shown.box, strict=True)
    box = ET.SubElement(
        image, "box", {**about, "occluded": "0", "z_order": "0", **{side: f"{at:.2f}" for side, at in sides}}
    )
    if source == "auto":
        ET.SubElement(box, "attribute", {"name": "score"}).text = f"{each.score:.4f}"


def write(data: Dataset, out: Path) -> list[str]:
    """``annotations.xml`` and ``images/``."""
    for item in data.items:
        target = out / "images" / item.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data.path(item), target)
    (out / "annotations.xml").write_bytes(annotations(data, {}))
    crowds = sum(each.crowd for item in data.items for each in item.shown)
    return [f"{crowds} crowds became plain objects: CVAT cannot say them."] if crowds else []


def read_labels(raw: bytes) -> dict[str, tuple[Shown, ...]]:
    """What every image shows, by its name.

    Raises:
        DataError: it is no such XML, or a number in it is none.
    """
    root = parse_xml(Path("annotations.xml"), raw)
    if root.tag != "annotations":
        raise DataError(f"This XML is of {root.tag!r}.", mend="Export as 'CVAT for images 1.1'.")
    if root.find(f"meta/{PROPOSED}") is not None:
        raise DataError("This is what was proposed, and nobody has looked at it.", mend="Export from CVAT.")
    return {str(image.get("name")): tuple(_read(image)) for image in root.findall("image")}


def _read(image: Any) -> Any:  # noqa: ANN401 -- the parser has no types
    where = f"image {image.get('name')!a}"
    for each in image:
        label = each.get("label")
        if each.tag not in {"box", "tag"} or not label:
            raise DataError(f"{where}: a {each.tag!r} is not known here.", mend="Label with boxes or tags.")
        if each.get("rotation") not in {None, "", "0", "0.0", "0.00"}:
            raise DataError(f"{where}: a box is turned.", mend="Draw it upright.")
        if each.tag == "tag":
            yield Shown(label=label)
            continue
        try:
            x1, y1, x2, y2 = (float(each.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: a box without its sides.", mend="Export it again.") from error
        yield Shown(label=label, box=pixels(x1, y1, x2, y2, where))
