"""All wheels that a device needs, chosen and locked on the workstation, so that the device needs no internet.

::

    DIR/<target>/wheels/*.whl        TinySight's own wheel and what it needs
    DIR/<target>/requirements.txt    each with its SHA-256: for ``pip install --no-index --require-hashes``
    DIR/<target>/wheelhouse.json     the same for programs; written last

pip resolves and downloads, in a child that is told of the device's machine and Python. Each wheel is compared with the
digest that the index named. What is whole is never downloaded again; a run that was stopped is repeated without harm.
Once made, a wheelhouse keeps its versions until it is made anew on purpose.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import locked, read_capped, replace_file, sha256_of
from tinysight_contract.scalars import Count, Digest
from tinysight_deploy.wheels.choice import Pip, Wanted, Wishes, canonical
from tinysight_deploy.wheels.own import own_wheel
from tinysight_deploy.wheels.target import Target, glibc_needed

__all__ = ["Wheel", "Wheelhouse", "make", "read"]

SCHEMA: Final = 1
MOST_BYTES: Final = 1 << 20
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}(?![\s\S])"


class Wheel(Struct, frozen=True, kw_only=True):
    """One wheel.

    Attributes:
        file: its name.
        name: of the package.
        version: of the package.
        sha256: of the file.
        size_bytes: of the file.
    """

    file: Annotated[str, Meta(pattern=NAME)]
    name: Annotated[str, Meta(pattern=NAME)]
    version: Annotated[str, Meta(pattern=NAME)]
    sha256: Digest
    size_bytes: Count


class Wheelhouse(Struct, frozen=True, kw_only=True):
    """What lies in the folder of one target. Kept as ``wheelhouse.json``.

    Attributes:
        schema: of this file.
        target: such as ``aarch64-py311``.
        glibc: the oldest C library that the wheels take.
        wheels: TinySight's own and all that it needs, by name.
        pip: what installs them; a device may have none of its own.
    """

    schema: int = SCHEMA
    target: str
    glibc: Annotated[str, Meta(pattern=r"^2\.\d{1,3}(?![\s\S])")]
    wheels: Annotated[tuple[Wheel, ...], Meta(min_length=1, max_length=500)]
    pip: Wheel

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(each.size_bytes for each in (*self.wheels, self.pip))

    @property
    def version(self) -> str:
        """TinySight's."""
        return next(each.version for each in self.wheels if each.name == "tinysight")

    def requirements(self) -> str:
        """``requirements.txt``: exact versions and digests, and nothing else is installed."""
        lines = [f"# For {self.target}. Written by `tinysight wheelhouse`, which writes it anew each time."]
        for each in self.wheels:
            name = "tinysight[edge]" if each.name == "tinysight" else each.name
            lines.append(f"{name}=={each.version} --hash=sha256:{each.sha256}")
        return "\n".join(lines) + "\n"


def read(folder: Path) -> Wheelhouse:
    """The wheelhouse of one target, each of its files compared with its digest.

    Raises:
        ConfigError: there is none, or a file is missing or was changed.
        OSError: a file cannot be read.
    """
    house = _known(folder)
    if house is None:
        raise ConfigError(f"{folder} holds no wheelhouse.", mend="Make one with `tinysight wheelhouse --target …`.")
    for each in (*house.wheels, house.pip):
        if not _is_whole(folder / "wheels" / each.file, each):
            raise ConfigError(
                f"{folder / 'wheels' / each.file} is missing or was changed.",
                mend="Run the same `tinysight wheelhouse` again; it fetches what is missing.",
            )
    return house


def make(out: Path, target: Target, wishes: Wishes, tell: Callable[[str], None]) -> tuple[Wheelhouse, int]:
    """Make or complete the wheelhouse of a target in ``out/<target>``.

    Args:
        out: folder of wheelhouses.
        target: for which devices.
        wishes: what else.
        tell: is told in a line what is done.

    Returns:
        What lies there now, and how many bytes were fetched for it.

    Raises:
        ConfigError: a wheel is not to be had for the target, or pip failed.
        OSError: a file cannot be read or written.
    """
    folder = out / str(target)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    busy = ConfigError(f"Another command writes to {folder}.", mend="Wait until it has ended.")
    with locked(folder, busy), tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        own = own_wheel(Path(scratch))
        before = _known(folder)
        if before is not None and not wishes.upgrade and _still_holds(before, own, wishes, wheels):
            return before, 0
        tell(f"{target}: choosing versions")
        pip = Pip(target, wishes, Path(scratch))
        kept = () if before is None or wishes.upgrade else [f"{each.name}=={each.version}" for each in before.wheels]
        found = pip.choose(own, [each for each in kept if not each.startswith("tinysight==")])
        fetched = 0
        made: list[Wheel] = []
        for number, wanted in enumerate(found, start=1):
            each, moved = _had(wheels / wanted.file, wanted, pip)
            fetched += moved
            made.append(each)
            size = f"{each.size_bytes / 2**20:.1f} MiB{'' if moved else ', there'}"
            tell(f"{target}: {number}/{len(found)} {each.file} {size}")
        house = Wheelhouse(
            target=str(target),
            glibc=glibc_needed(each.file for each in made),
            wheels=tuple(sorted((each for each in made if each.name != "pip"), key=lambda each: each.name)),
            pip=next(each for each in made if each.name == "pip"),
        )
        replace_file(folder / "requirements.txt", house.requirements().encode())
        replace_file(folder / "wheelhouse.json", msgspec.json.format(msgspec.json.encode(house), indent=1) + b"\n")
        names = {each.file for each in made}
        for path in wheels.iterdir():
            if path.name not in names:
                path.unlink()
        return house, fetched


def _known(folder: Path) -> Wheelhouse | None:
    path = folder / "wheelhouse.json"
    try:
        data = read_capped(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        house = msgspec.json.decode(data, type=Wheelhouse)
        if house.schema != SCHEMA or not any(each.name == "tinysight" for each in house.wheels):
            raise ValueError("of another version")
        Target.parse(house.target)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be understood: {error}.", mend="Delete it and run it again.") from error
    return house


def _is_whole(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and path.stat().st_size == wheel.size_bytes and sha256_of(path) == wheel.sha256


def _still_holds(house: Wheelhouse, own: Path, wishes: Wishes, wheels: Path) -> bool:
    """Whether nothing has to be done."""
    ours = next(each for each in house.wheels if each.name == "tinysight")
    asked = {canonical(re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0]) for each in wishes.more}
    return (
        ours.sha256 == sha256_of(own)
        and asked <= {each.name for each in house.wheels}
        and all(_is_whole(wheels / each.file, each) for each in (*house.wheels, house.pip))
    )


def _had(path: Path, wanted: Wanted, pip: Pip) -> tuple[Wheel, int]:
    """Have one wheel under its path; how many bytes came for it."""
    moved = 0
    if not (path.is_file() and wanted.sha256 and sha256_of(path) == wanted.sha256):
        came = pip.fetch(wanted)
        moved = came.stat().st_size
        came.replace(path)
    digest, size = sha256_of(path), path.stat().st_size
    return Wheel(file=path.name, name=wanted.name, version=wanted.version, sha256=digest, size_bytes=size), moved
