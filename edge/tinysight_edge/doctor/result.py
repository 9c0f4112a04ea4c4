"""What a check found."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

__all__ = ["Figure", "Result", "Verdict", "fail", "ok", "skip", "warn"]

Figure = float | int | str | bool | list[str] | None
_NONE: Final[Mapping[str, Figure]] = {}


class Verdict(StrEnum):
    """How it went; ``skip`` says that there was nothing to check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Result(Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        check: its name; a camera's is ``camera NAME``.
        verdict: how it went.
        what: one sentence.
        mend: what to do now; empty when all is well.
        took_ms: how long it took.
        figures: what was measured.
    """

    check: str = ""
    verdict: Verdict
    what: str
    mend: str = ""
    took_ms: float = 0.0
    figures: dict[str, Figure] = {}


def ok(what: str, figures: Mapping[str, Figure] = _NONE) -> Result:
    """All is well."""
    return Result(verdict=Verdict.OK, what=what, figures=dict(figures))


def warn(what: str, mend: str, figures: Mapping[str, Figure] = _NONE) -> Result:
    """It works, and will be trouble."""
    return Result(verdict=Verdict.WARN, what=what, mend=mend, figures=dict(figures))


def fail(what: str, mend: str, figures: Mapping[str, Figure] = _NONE) -> Result:
    """An agent will not work so."""
    return Result(verdict=Verdict.FAIL, what=what, mend=mend, figures=dict(figures))


def skip(why: str, mend: str) -> Result:
    """There is nothing to check; ``mend`` says how it can be."""
    return Result(verdict=Verdict.SKIP, what=why, mend=mend)
