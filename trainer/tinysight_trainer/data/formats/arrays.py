"""Arrays of small pictures: ``.npz`` as Keras saves its sets, MNIST's own ``idx`` files; read one picture at a time.

``.npz``: ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y``; uint8 (n, h, w), (n, h, w, 1) or RGB
(n, h, w, 3), labels as integers. Nothing is unpickled.
"""

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_trainer.data.formats.raw import Raw
from tinysight_trainer.data.item import Shown, Split

__all__ = ["PUBLIC", "claims_idx", "claims_npz", "public", "read_idx", "read_npz"]

MAX_SIDE: Final = 4096
MAX_COUNT: Final = 10_000_000
PAIRS: Final[tuple[tuple[str, str, Split | None], ...]] = (
    ("x_train", "y_train", "train"),
    ("x_test", "y_test", "test"),
    ("x", "y", None),
    ("images", "labels", None),
)
IDX: Final = re.compile(r"(train|t10k|test)-images[.-]idx3-ubyte(\.gz)?")
_CLOTHES: Final = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_CIFAR: Final = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
PUBLIC: Final = {"mnist": "", "fashion-mnist": _CLOTHES, "cifar10": _CIFAR}

Names = Sequence[str] | None


def claims_npz(source: Path) -> bool:
    """It is a ``.npz``."""
    return source.is_file() and source.suffix == ".npz"


def claims_idx(source: Path) -> bool:
    """It is an ``idx`` file of images, or a folder with one."""
    return bool(_idx_files(source))


def read_npz(source: Path, *, names: Names = None) -> Iterator[Raw]:
    """Every picture of the file.

    Args:
        source: the file.
        names: of the classes by number; without them the number is the name.

    Raises:
        DataError: it is damaged, holds other arrays, or asks to be unpickled.
    """
    try:
        with zipfile.ZipFile(source) as held:
            there = {member.filename.removesuffix(".npy") for member in held.infolist()}
            pairs = [each for each in PAIRS if {each[0], each[1]} <= there]
            if not pairs:
                raise DataError(f"{source} holds {sorted(there)[:8]}.", mend="Save x_train, y_train, x_test, y_test.")
            for x, y, split in pairs:
                with held.open(f"{x}.npy") as pictures, held.open(f"{y}.npy") as labels:
                    size = {name: held.getinfo(f"{name}.npy").file_size for name in (x, y)}
                    yield from _paired(source, (pictures, size[x]), (labels, size[y]), split, names)
    except DataError:
        raise
    except Exception as error:  # zipfile and its decompressors raise a dozen kinds
        raise DataError(f"{source} is damaged: {error!r}.", mend="Fetch it again.") from error


def _paired(
    source: Path, pictures: tuple[IO[bytes], int], labels: tuple[IO[bytes], int], split: Split | None, names: Names
) -> Iterator[Raw]:
    shape, dtype = _header(source, *pictures)
    if dtype != np.uint8 or len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3}):
        raise DataError(f"{source}: pictures are {dtype} {shape}.", mend="Save uint8 (n, h, w) or RGB (n, h, w, 3).")
    many, kind = _header(source, *labels)
    if kind.kind not in "iu" or int(np.prod(many)) != shape[0]:
        raise DataError(f"{source}: {shape[0]} pictures and labels {kind} {many}.", mend="Save one integer a picture.")
    _check_sizes(source, shape)
    raw = labels[0].read(kind.itemsize * shape[0])
    if len(raw) != kind.itemsize * shape[0]:
        raise DataError(f"{source} ends in the middle.", mend="Fetch it again.")
    yield from _pictures(source, pictures[0], shape, np.frombuffer(raw, kind), split=split, names=names)


def _header(source: Path, file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # NumPy reads the header as Python and raises what that raises
        raise DataError(f"{source} holds no array: {error!r}.", mend="Save it with numpy.savez.") from error
    if dtype.hasobject:
        raise DataError(f"{source} wants to be unpickled, which could run anything.", mend="Save plain numbers.")
    if fortran or int(np.prod(shape, dtype=object)) * dtype.itemsize > size:
        raise DataError(f"{source}: its header does not fit its content.", mend="Save it again, in C order.")
    return shape, dtype


def _check_sizes(source: Path, shape: Sequence[int]) -> None:
    if shape[0] > MAX_COUNT or not all(1 <= side <= MAX_SIDE for side in shape[1:3]):
        raise DataError(f"{source}: {shape[0]} pictures of {shape[1:]} are too many or too large.", mend="Split it.")


def _pictures(
    source: Path, file: IO[bytes], shape: Sequence[int], labels: NDArray[Any], *, split: Split | None, names: Names
) -> Iterator[Raw]:
    side = (*shape[1:], 1) if len(shape) == 3 else tuple(shape[1:])
    length = int(np.prod(side))
    for number, label in enumerate(labels.ravel().tolist()):
        raw = file.read(length)
        if len(raw) != length:
            raise DataError(f"{source} ends after {number} of {shape[0]} pictures.", mend="Fetch it again.")
        picture = np.frombuffer(raw, np.uint8).reshape(side)
        yield _one(source, picture, number, int(label), split=split, names=names)


def _one(
    source: Path, picture: NDArray[np.uint8], number: int, label: int, *, split: Split | None, names: Names
) -> Raw:
    if names is not None and not 0 <= label < len(names):
        raise DataError(f"{source}: picture {number} is of class {label}.", mend=f"Name {label + 1} classes.")
    bgr = picture[..., ::-1] if picture.shape[2] == 3 else picture
    content = cv2.imencode(".png", np.ascontiguousarray(bgr))[1].tobytes()
    name = f"{split}/{number:06d}.png" if split else f"{number:06d}.png"
    return Raw(name=name, content=content, shown=(Shown(label=names[label] if names else str(label)),), split=split)


def _idx_files(source: Path) -> list[Path]:
    found = [source] if source.is_file() else sorted(source.iterdir()) if source.is_dir() else []
    return [path for path in found if IDX.fullmatch(path.name)]


def read_idx(source: Path, *, names: Names = None) -> Iterator[Raw]:
    """Every picture of MNIST's own files, zipped or not; ``t10k`` is the test.

    Raises:
        DataError: a file is damaged, or its labels are missing.
    """
    for path in _idx_files(source):
        split: Split = "train" if path.name.startswith("train") else "test"
        beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        if not beside.is_file():
            raise DataError(f"{beside} is missing.", mend="Put the labels beside the images.")
        with ExitStack() as stack:
            opened: list[IO[bytes]] = [stack.enter_context(_open(each)) for each in (path, beside)]
            try:
                shape, many = (_idx_header(each, file) for each, file in zip((path, beside), opened, strict=True))
                if len(shape) != 3 or many != shape[:1]:
                    raise DataError(f"{path} and its labels do not fit: {shape}, {many}.", mend="Fetch them again.")
                _check_sizes(path, shape)
                labels = np.frombuffer(opened[1].read(shape[0]), np.uint8)
                if len(labels) != shape[0]:
                    raise DataError(f"{beside} ends in the middle.", mend="Fetch it again.")
                yield from _pictures(path, opened[0], shape, labels, split=split, names=names)
            except (OSError, EOFError, zlib.error, struct.error) as error:
                raise DataError(f"{path} is damaged: {error}.", mend="Fetch it again.") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]  # a GzipFile reads bytes


def _idx_header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
    """Yann LeCun's format: two zeros, the type (8 is uint8), the number of sides, the sides, big-endian."""
    head = file.read(4)
    if len(head) != 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 3:
        raise DataError(f"{path} is no idx file of bytes.", mend="Fetch it again.")
    return struct.unpack(f">{head[3]}I", file.read(4 * head[3]))


def public(name: str) -> Iterator[Raw]:
    """A known public set, fetched by Keras once and kept in its cache.

    Raises:
        DataError: it cannot be fetched.
    """
    from keras import datasets  # noqa: PLC0415 -- TensorFlow

    load: Callable[[], Any] = getattr(datasets, name.replace("-", "_")).load_data
    try:
        parts = load()
    except Exception as error:
        raise DataError(
            f"{name} cannot be fetched: {' '.join(str(error).split())}.",
            mend="Fetch its .npz by hand and import that file.",
        ) from error
    names = PUBLIC[name].split(",") if PUBLIC[name] else None
    splits: tuple[Split, ...] = ("train", "test")
    for split, (pictures, labels) in zip(splits, parts, strict=True):
        for number, (picture, label) in enumerate(zip(pictures, labels.ravel().tolist(), strict=True)):
            whole = picture if picture.ndim == 3 else picture[..., None]
            yield _one(Path(name), whole, number, int(label), split=split, names=names)
