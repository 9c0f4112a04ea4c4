"""How much of what is planted `tinysight data clean` finds: wrong labels and near-duplicates in MNIST.

    python benchmarks/data_clean.py --data mnist.npz

Three per cent of the labels are flipped and two per cent of the pictures are there a second time, blurred, shifted by a
pixel, compressed, brightened, noisy or slightly turned. Prints one JSON line last. "Precision" counts what was not
planted as wrong; MNIST has some wrong labels and twins of its own.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from steps import where

from tinysight_trainer.data.clean import find_faults
from tinysight_trainer.data.formats.raw import Raw
from tinysight_trainer.data.importer import import_pictures
from tinysight_trainer.data.item import Shown

FLIPPED, COPIED = 0.03, 0.02


def copy_of(image: NDArray[np.uint8], how: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same picture, as another camera, encoder or hand would have it."""
    if how == 0:
        return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0), np.uint8)
    if how == 1:
        return np.asarray(np.clip(image * 0.8 + 20, 0, 255), np.uint8)
    if how == 2:
        dx, dy = [(1, 0), (-1, 0), (0, 1), (0, -1)][rng.integers(4)]
        return np.asarray(np.roll(image, (dx, dy), (0, 1)), np.uint8)
    if how == 3:
        return np.asarray(np.clip(image + rng.normal(0, 10, image.shape), 0, 255), np.uint8)
    if how == 4:
        return np.asarray(cv2.GaussianBlur(image, (3, 3), 0.7), np.uint8)
    turn = cv2.getRotationMatrix2D((13.5, 13.5), 2, 1)
    return np.asarray(cv2.warpAffine(image, turn, (28, 28)), np.uint8)


def planted(path: Path, count: int) -> tuple[list[Raw], set[str], set[frozenset[str]]]:
    """Pictures as a reader would deliver them; names with a wrong label, and pairs of copies."""
    with np.load(path, allow_pickle=False) as held:
        images, labels = held["x_train"].reshape(-1, 28, 28)[:count], held["y_train"][:count]
    rng = np.random.default_rng(0)
    flipped = set(rng.choice(count, round(count * FLIPPED), replace=False).tolist())
    sources = rng.choice(count, round(count * COPIED), replace=False)
    raws, pairs = [], set()
    for number in range(count):
        label = int(labels[number])
        if number in flipped:
            label = (label + int(rng.integers(1, 10))) % 10
        raws.append(raw(f"{number:06d}.png", images[number], label))
    for number, source in enumerate(sources.tolist()):
        name = f"copy-{number:06d}.png"
        pairs.add(frozenset((name, f"{source:06d}.png")))
        label = int(raws[source].shown[0].label)
        raws.append(raw(name, copy_of(images[source], number % 6, rng), label))
        if source in flipped:
            flipped.add(count + number)
    return raws, {raws[number].name for number in flipped}, pairs


def raw(name: str, image: NDArray[np.uint8], label: int) -> Raw:
    """One picture."""
    return Raw(name=name, content=cv2.imencode(".png", image)[1].tobytes(), shown=(Shown(label=str(label)),))


def main() -> None:
    """Plant, clean, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MNIST as keras.datasets saves it")
    parser.add_argument("--pictures", type=int, default=60_000)
    given = parser.parse_args()
    raws, flipped, pairs = planted(given.data, given.pictures)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        data = import_pictures(iter(raws), Path(folder) / "data", source={"format": "npz"})
        import_s, begun = time.monotonic() - begun, time.monotonic()
        found = find_faults(data, say=lambda text: print(f"{time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr))
        clean_s = time.monotonic() - begun
    mislabels = {each.pictures[0] for each in found.findings if each.kind == "mislabel"}
    twins = {frozenset(each.pictures) for each in found.findings if each.kind in {"near-duplicate", "exact-duplicate"}}
    print(
        json.dumps(
            {
                "pictures": len(raws),
                "mislabel_recall": round(len(mislabels & flipped) / len(flipped), 4),
                "mislabel_precision": round(len(mislabels & flipped) / max(len(mislabels), 1), 4),
                "near_duplicate_recall": round(len(twins & pairs) / len(pairs), 4),
                "near_duplicate_precision": round(len(twins & pairs) / max(len(twins), 1), 4),
                "turned_found": found.counts().get("turned", 0),
                "import_s": round(import_s, 1),
                "clean_s": round(clean_s, 1),
                "pictures_per_s": round(len(raws) / clean_s, 1),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "where": where(),
            }
        )
    )


if __name__ == "__main__":
    main()
