"""What every source is, and what is known of it before it is opened."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["LASTING", "Image", "Policy", "Source"]

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a kind of source is treated.

    Attributes:
        live: time goes on without us, so an old picture is worth nothing; else every picture is wanted.
        still: the pictures have nothing to do with each other, so an object lives for one of them.
        lasting: a device that comes back: it may be absent, and is opened again for ever.
    """

    live: bool = False
    still: bool = False
    lasting: bool = False


LASTING: Final = Policy(live=True, lasting=True)


class Source(Protocol):
    """Something that delivers pictures one after another. Used by one thread at a time.

    Attributes:
        name: what may be shown to others; never holds credentials.
        width: of the pictures in pixels; 0 before the first one of a stream that does not tell.
        height: of the pictures in pixels; 0 likewise.
        fps: pictures a second as the source says; 0 when it does not.
        duration_s: of the whole recording; 0 when unknown or live.
    """

    name: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration_s: float = 0.0

    def grab(self) -> float | None:
        """Go on to the next picture: its time in seconds since the source began, or None at the end.

        Raises:
            CameraError: the source broke; it may be opened again.
        """

    def retrieve(self) -> Image | None:
        """The picture last grabbed, (H, W, 3) uint8 BGR, or None when it is damaged. The caller may write into it.

        Raises:
            CameraError: as `grab`.
        """

    def close(self) -> None:
        """Give the device or file back."""

    def read(self) -> tuple[Image, float] | None:
        """The next picture that is whole, and its time; None at the end.

        Raises:
            CameraError: as `grab`.
        """
        while (at_s := self.grab()) is not None:
            if (image := self.retrieve()) is not None:
                return image, at_s
        return None
