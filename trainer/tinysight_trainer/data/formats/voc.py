"""Pascal VOC: one XML file a picture, ``Annotations/`` beside ``JPEGImages/``, or XML beside the images.

Coordinates are taken as they stand, as edges in pixels, which is how LabelImg and most tools write them; the original
set counted from one. ``difficult`` objects are crowds here: neither right nor wrong to find. An object without
``bndbox`` says what its picture is of as a whole. An image without XML is not labelled.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import Raw, images_in, inside, other_name, parts, pixels, read_text, split_names
from tinysight_trainer.data.item import Item, Shown, Split

__all__ = ["claims", "parse_xml", "read", "write"]

MAX_XML_BYTES: Final = 1 << 20
SETS: Final = ("train", "val", "test")


def claims(source: Path) -> bool:
    """There are XML files in ``Annotations/`` or beside the images."""
    return (
        source.is_dir()
        and (next((source / "Annotations").glob("*.xml"), None) or next(source.glob("*.xml"), None)) is not None
    )


def parse_xml(path: Path, raw: bytes) -> Any:  # noqa: ANN401 -- the parser has no types
    """The root element; entities and document types are refused.

    Raises:
        DataError: it is no XML, or tries something.
    """
    try:
        return defusedxml.ElementTree.fromstring(raw, forbid_dtd=True)
    except (ET.ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"{path} is no XML that is read here: {error!r}.", mend="Export it again.") from error


def read(source: Path) -> Iterator[Raw]:
    """Every image, with what its XML file says.

    Raises:
        DataError: an XML file is broken, or a number in it is none.
    """
    pictures = next(path for name in ("JPEGImages", "images", ".") if (path := source / name).is_dir())
    notes = source / "Annotations" if (source / "Annotations").is_dir() else source
    splits = _splits(source)
    known: set[str] = set()
    for path in images_in(pictures):
        file = inside(source, path)
        stem = path.relative_to(pictures).with_suffix("").as_posix()
        known.add(stem)
        yield _one(source, notes / f"{stem}.xml", file, splits.get(stem))
    for note in sorted(notes.rglob("*.xml")):  # those whose image is missing
        stem = note.relative_to(notes).with_suffix("").as_posix()
        if stem not in known:
            yield _one(source, note, pictures / f"{stem}.jpg", splits.get(stem))


def _splits(source: Path) -> dict[str, Split]:
    files = [path for name in SETS if (path := source / "ImageSets" / "Main" / f"{name}.txt").is_file()]
    names = split_names((path.stem for path in files), source) if files else {}
    out: dict[str, Split] = {}
    for path in files:
        for line in read_text(path).decode("utf-8", "replace").splitlines():
            if line.strip():
                out[line.strip()] = names[path.stem]
    return out


def _one(root: Path, note: Path, file: Path, split: Split | None) -> Raw:
    if not note.is_file():
        return Raw(name=other_name(root, file), file=file, split=split, labelled=False)
    tree = parse_xml(note, read_text(inside(root, note), most=MAX_XML_BYTES))
    shown = tuple(_shown(note, each) for each in tree.findall("object"))
    size = tree.find("size")
    sides = [int(_number(note, size, side)) for side in ("width", "height")] if size is not None else [0, 0]
    whole = (sides[0], sides[1]) if all(sides) else None
    return Raw(name=other_name(root, file), file=file, shown=shown, size=whole, split=split)


def _shown(note: Path, each: Any) -> Shown:  # noqa: ANN401 -- see above
    label = (each.findtext("name") or "").strip()
    if not label:
        raise DataError(f"{note}: an object has no name.", mend="Give it one, or remove it.")
    corners = each.find("bndbox")
    box = None
    if corners is not None:
        x1, y1, x2, y2 = (_number(note, corners, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        box = pixels(x1, y1, x2, y2, str(note))
    return Shown(label=label, box=box, crowd=(each.findtext("difficult") or "0").strip() == "1")


def _number(note: Path, parent: Any, name: str) -> float:  # noqa: ANN401 -- see above
    text = parent.findtext(name)
    try:
        value = float(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"{note}: {name} is {text!r}, no number.", mend="Correct it.") from error
    if not math.isfinite(value):
        raise DataError(f"{note}: {name} is {text!r}, no box has that.", mend="Correct it.")
    return value


def write(data: Dataset, out: Path) -> list[str]:
    """``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/``."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    lost = 0
    for word, items in parts(data, flat=True):
        stems = []
        for item, name in items:
            shutil.copyfile(data.path(item), out / "JPEGImages" / name)
            stem = Path(name).stem
            stems.append(stem)
            lost += sum(len(each.polygons) for each in item.shown)
            if item.labelled:
                (out / "Annotations" / f"{stem}.xml").write_bytes(_xml(item, name))
        if word:
            (out / "ImageSets" / "Main" / f"{word}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return [f"{lost} outlines were left out: VOC's XML cannot say them."] if lost else []


def _xml(item: Item, name: str) -> bytes:
    tree = ET.Element("annotation")
    ET.SubElement(tree, "filename").text = name
    size = ET.SubElement(tree, "size")
    for side, value in (("width", item.width), ("height", item.height), ("depth", 3)):
        ET.SubElement(size, side).text = str(value)
    for each in item.shown:
        thing = ET.SubElement(tree, "object")
        ET.SubElement(thing, "name").text = each.label
        ET.SubElement(thing, "difficult").text = str(int(each.crowd))
        if each.box is not None:
            corners = ET.SubElement(thing, "bndbox")
            for side, at in zip(("xmin", "ymin", "xmax", "ymax"), each.box, strict=True):
                ET.SubElement(corners, side).text = f"{at:.2f}".rstrip("0").rstrip(".")
    ET.indent(tree)
    return bytes(ET.tostring(tree, encoding="utf-8", xml_declaration=True))
