"""What may be changed of a configuration from outside, and how: the desired state's ``config`` over the file's content.

In: the tables of ``agent.toml`` and a JSON merge patch (RFC 7396).  Out: the merged tables, or `Finding`s for what is
not to be changed by whoever can write to the broker. Pure. Whether the result is right is for `file` to say.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from tinysight_contract.scalars import Count
from tinysight_edge.config.checks import Finding, Hints, Where

__all__ = ["CAMERA", "PARTS", "SECTIONS", "Overlay", "merged", "not_from_outside"]

SECTIONS: Final = ("rules", "governor")
"""May be changed or taken out as a whole."""
CAMERA: Final = ("zones", "lines", "motion", "tiles", "max_fps")
"""Of a camera that the file names. Not its source, its login, its turn or its masks."""
PARTS: Final[Mapping[str, Collection[str]]] = {
    "health": ("every", "max_drift"),
    "snapshots": ("quality",),
    "examples": ("per_hour",),
}
"""Of other tables. Not how much of the disk they take, for that might fill it, or delete what was kept."""
CONSENT: Final = ("snapshots", "examples")
"""These the file must have: whether pictures are kept at all is for who owns the device."""


class Overlay(Struct, frozen=True, kw_only=True):
    """What lies over the file, and which revision of the desired state brought it."""

    revision: Count
    config: dict[str, Any]


def merged(target: Any, patch: Any) -> Any:  # noqa: ANN401 -- any JSON
    """``target`` with the patch over it (RFC 7396): null takes a key out, a list replaces the whole list.

    Raises:
        RecursionError: its tables lie too deep in each other.
    """
    if not isinstance(patch, Mapping):
        return patch
    out = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def not_from_outside(patch: Mapping[str, Any], file: Mapping[str, Any]) -> list[Finding]:
    """Everything that the patch may not touch of the file's tables."""
    return list(_refused(patch, file))


def _refused(patch: Mapping[str, Any], file: Mapping[str, Any]) -> Iterator[Finding]:
    for key, value in patch.items():
        if key == "cameras":
            yield from _cameras(value, file.get("cameras", {}))
        elif key in CONSENT and key not in file:
            yield Finding((key,), f"The file keeps no {key}.", f"Put [{key}] into the device's own file.")
        elif key in PARTS:
            yield from _parts(value, PARTS[key], (key,))
        elif key not in SECTIONS:
            yield _no((key,))


def _cameras(patch: Any, cameras: Collection[str]) -> Iterator[Finding]:  # noqa: ANN401 -- any JSON
    if not isinstance(patch, Mapping):
        yield _no(("cameras",))
        return
    hints = Hints()
    for id_, value in patch.items():
        if id_ in cameras:
            yield from _parts(value, CAMERA, ("cameras", id_))
        else:
            mend = hints.near(id_, cameras, what="camera")
            yield Finding(("cameras", id_), f"The file names no camera {id_!r}.", mend)


def _parts(patch: Any, allowed: Collection[str], where: Where) -> Iterator[Finding]:  # noqa: ANN401 -- any JSON
    if not isinstance(patch, Mapping):
        yield _no(where)
        return
    for key in patch:
        if key not in allowed:
            yield _no((*where, key))


def _no(where: Where) -> Finding:
    return Finding(where, "This is not changed from outside.", "Change it in the device's own file.")
