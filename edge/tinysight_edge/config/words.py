"""The types and the values of the configuration in the words of people.

In: a type of `config`, or a value of one.  Out: what an error, a reference or a listing says of it. Secrets that stand
in an address do not come out.
"""

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.scalars import Id
from tinysight_edge.config.types import Point, Polygon
from tinysight_edge.units import Seconds, Size

__all__ = ["Kind", "bare", "limits", "parts", "redacted", "words", "written"]

Kind: TypeAlias = Any
"""A type as it stands in an annotation; Python has no one type for these."""

PATTERNS: Final = {
    get_args(Id)[1].pattern: "an id: 1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit",
    r"^([01][0-9]|2[0-3]):[0-5][0-9](?![\s\S])": "a time of day such as '07:30'",
    r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)(?![\s\S])": "a time of day such as '17:30', or '24:00'",
    r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*(?![\s\S])": "the beginning of topics such as 'homeassistant'",
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(?![\s\S])": "the first level of topics such as 'frigate'",
}
_PLAIN: Final[dict[Kind, str]] = {str: "a text", bool: "true or false", Path: "a path"}
_KEYS: Final = re.compile(
    r"(?i)([?&;/_][^=&;#?/\s]{0,40}(?:pass|pwd|pw|user|usr|login|token|key|secret|auth)[^=&;#?/\s]{0,40}=)"
    r".*?(?=[&;][\w.-]*=|_[a-z]+=|\s|$)"  # some cameras join the pairs of their path by '_'
)


def bare(kind: Kind) -> tuple[Kind, list[Meta]]:
    """A type without ``| None``, and what is noted at it."""
    notes: list[Meta] = []
    origin, inner = parts(kind)
    while origin in {Annotated, Union, UnionType}:
        if origin is Annotated:
            notes += inner[1:]
        kind = next(each for each in inner if each is not type(None))
        origin, inner = parts(kind)
    return kind, notes


def parts(kind: Kind) -> tuple[Kind, tuple[Kind, ...]]:
    """What a bare type is made of: its origin and its arguments."""
    return get_origin(kind), get_args(kind)


def limits(notes: list[Meta]) -> tuple[str, str] | None:
    """The least and the most of a time or a size."""
    found = next((note.extra for note in notes if note.extra), None)
    return (str(found["least"]), str(found["most"])) if found else None


def words(kind: Kind) -> str:
    """What must be written for a value of this type: ``a whole number from 1 to 64``."""
    known = {Point: "a point: [x, y], each from 0 to 1", Polygon: "a polygon: 3 to 64 points [x, y], each from 0 to 1"}
    if kind in known:
        return known[kind]
    plain, notes = bare(kind)
    if plain in {Seconds, Size}:
        one = "a time with its unit, such as '20s'" if plain is Seconds else "a size with its unit, such as '512MiB'"
        within = limits(notes)
        return one + (f", from {within[0]} to {within[1]}" if within else "")
    if plain in {int, float}:
        return ("a whole number" if plain is int else "a number") + _range(notes)
    origin, inner = parts(plain)
    if origin is Literal:
        return "one of " + ", ".join(written(each) for each in inner)
    if origin is tuple:
        many = "a list" if inner[-1] is Ellipsis else f"a list of {len(inner)}"
        return f"{many}, each {words(inner[0])}"
    if origin is dict:
        return "tables, by id"
    if isinstance(plain, type) and issubclass(plain, Struct):
        return "a table"
    pattern = next((note.pattern for note in notes if note.pattern), None)
    return PATTERNS[pattern] if pattern else _PLAIN[plain]


def _range(notes: list[Meta]) -> str:
    note = next((each for each in notes if any(v is not None for v in (each.ge, each.gt, each.le))), Meta())
    most = f" to {note.le:g}" if note.le is not None else ""
    if note.gt is not None:
        return f" above {note.gt:g}" + (f" and up{most}" if most else "")
    return f" from {note.ge:g}{most}" if note.ge is not None else ""


def written(value: object) -> str:
    """A value as it would stand in the file; addresses without their secrets."""
    if isinstance(value, Seconds | Size):
        return f'"{value.written()}"'
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(written(each) for each in value)}]"
    return msgspec.json.encode(redacted(str(value))).decode()


def redacted(text: str) -> str:
    """An address without its user, its password and what its query or its path calls one, or a token or a key."""
    return _KEYS.sub(r"\1***", re.sub(r"(?s)(\w://).*@", r"\1***@", text))
