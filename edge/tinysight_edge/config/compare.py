"""Compare what stands in a file with the types of `config`, and say all differences instead of the first.

In: tables, lists and leaves as `tomllib` gives them, and a type.  Out: `Finding`s in plain words. A leaf is judged by
msgspec; what is walked over here is what lies around the leaves.
"""

import math
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from tinysight_edge.config.checks import Finding, Where, near
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.words import Kind, bare, limits, parts, redacted, words, written
from tinysight_edge.units import Seconds, Size

__all__ = ["UNKNOWN", "compare", "read_leaf"]

UNKNOWN: Final = "Nobody knows this key."
_LENGTHS: Final = ("min_length", "max_length")
_TYPES: Final = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
    type(None): "null",
}


def compare(value: Any, kind: Kind, path: Where, found: list[Finding]) -> Any:  # noqa: ANN401 -- whatever TOML holds
    """Compare a value with a type down to its leaves and note each thing that is wrong.

    Returns:
        The value without its unknown keys, so that one typo hides nothing else.
    """
    plain, notes = bare(kind)
    if isinstance(plain, type) and issubclass(plain, Struct):
        return _compare_struct(value, plain, path, found)
    origin, inner = parts(plain)
    if origin is dict or origin is tuple:
        if not isinstance(value, dict if origin is dict else list):
            found.append(_wrong(value, kind, path))
            return value
        least, most = (
            next((getattr(n, name) for n in notes if getattr(n, name) is not None), None) for name in _LENGTHS
        )
        if origin is tuple and inner[-1] is not Ellipsis:
            least = most = len(inner)
        if (least is not None and len(value) < least) or (most is not None and len(value) > most):
            wanted = f"{least}" if least == most else f"{least or 0} to {most}" if most else f"at least {least}"
            what = f"It has {len(value)} {'entry' if len(value) == 1 else 'entries'}, not {wanted}."
            found.append(Finding(path, what, f"Write {words(kind)}."))
            return value
        if origin is tuple:
            if _fits(value, kind):  # a polygon at once instead of each number of it
                return value
            kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            return [compare(each, of, (*path, n), found) for n, (each, of) in enumerate(zip(value, kinds, strict=True))]
        for key in value:
            compare(key, inner[0], (*path, key), found)
        return {key: compare(value[key], inner[1], (*path, key), found) for key in value}
    if _fits(value, kind):
        return value
    found.append(_wrong(value, kind, path))
    return value


@cache  # msgspec resolves the annotations again each time
def _fields(kind: type[Struct]) -> dict[str, FieldInfo]:
    return {field.name: field for field in fields(kind)}


def _compare_struct(value: Any, kind: type[Struct], path: Where, found: list[Finding]) -> Any:  # noqa: ANN401 -- as compare
    if not isinstance(value, dict):
        found.append(_wrong(value, kind, path))
        return value
    known = _fields(kind)
    found += [Finding((*path, key), UNKNOWN, _mend_unknown(key, known, path)) for key in value if key not in known]
    found += [
        Finding((*path, name), "It is missing.", f"Write {words(field.type)}.")
        for name, field in known.items()
        if field.required and name not in value
    ]
    return {key: compare(value[key], known[key].type, (*path, key), found) for key in value if key in known}


def _mend_unknown(key: str, known: Collection[str], path: Where) -> str:
    if key.lower() in {"password", "passwd", "pass", "pwd"} and "password_file" in known:
        return "A password does not stand in this file: use password_file or password_env."
    if path and key in _fields(AgentConfig):
        return f"If {key!r} is meant for the agent, put it above the first [table]."
    place = Finding(path, "", "").key
    close = near(key, known, what="key")
    return close.replace("Did you mean '", f"Did you mean '{place}.") if place else close


def read_leaf(kind: type, value: object) -> Any:  # noqa: ANN401 -- msgspec asks for it
    """Make a `Seconds`, a `Size` or a path of what stands in the file; msgspec's ``dec_hook``.

    Raises:
        ValueError: it is none.
    """
    if kind is Seconds or kind is Size:
        return kind.parse(value)
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("this is no path")


def _fits(value: Any, kind: Kind) -> bool:  # noqa: ANN401 -- as compare
    try:
        got = msgspec.convert(value, kind, dec_hook=read_leaf)
    except msgspec.ValidationError:
        return False
    plain, notes = bare(kind)
    within = limits(notes)
    if within is not None and (plain is Seconds or plain is Size):
        least, most = (plain.parse(each) for each in within)
        return bool(least <= got <= most)
    return not isinstance(got, float) or math.isfinite(got)


def _wrong(value: object, kind: Kind, path: Where) -> Finding:
    """A value is shown when it is short and of the right sort; a text that should be a list may hold anything."""
    plain, _ = bare(kind)
    origin, choices = parts(plain)
    wanted = words(kind)
    mend = f"Write {wanted}."
    shown = _TYPES.get(type(value), "a date or a time")
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = str(value)[:40]
    elif isinstance(value, str) and (plain in {str, Seconds, Size} or origin is Literal):
        shown = written(redacted(value[:4096])[:60])  # cut later: half a login is not known as one
        if origin is Literal:
            mend = near(value, [str(each) for each in choices], what="choice")
    return Finding(path, f"{shown[:1].upper()}{shown[1:]} does not fit here.", mend)
