"""Small data sets, drawn in the test that needs them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import Raw
from tinysight_trainer.data.importer import import_pictures
from tinysight_trainer.data.item import Shown

Picture = Callable[..., bytes]
Make = Callable[..., Dataset]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """An encoded picture that looks like no other with another number."""

    def make(number: int, *, width: int = 64, height: int = 48, suffix: str = ".png") -> bytes:
        rng = np.random.default_rng(number)
        blobs = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        image = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
        return bytes(cv2.imencode(suffix, image)[1].tobytes())

    return make


@pytest.fixture
def make_data(tmp_path: Path, picture: Picture) -> Make:
    """A data set of pictures with these things shown, through the importer."""

    def make(
        shown: Sequence[Sequence[Shown]],
        *,
        name: str = "data",
        splits: Sequence[str | None] = (),
        sessions: Sequence[str | None] = (),
        labelled: Sequence[bool] = (),
    ) -> Dataset:
        raws = [
            Raw(
                name=f"{number:03d}.png",
                content=picture(number),
                shown=tuple(each),
                split=splits[number] if splits else None,  # type: ignore[arg-type]  # names of splits
                session=sessions[number] if sessions else None,
                labelled=labelled[number] if labelled else True,
            )
            for number, each in enumerate(shown)
        ]
        return import_pictures(iter(raws), tmp_path / name, source={"format": "test"})

    return make
