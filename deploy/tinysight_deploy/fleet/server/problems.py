"""What an API says when it does not do what was asked: RFC 9457, and what to do about it."""

from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from tinysight_contract.errors import (
    BrokerError,
    ConfigError,
    ContractError,
    FleetError,
    NoSuch,
    NotLeading,
    Outdated,
    StateGone,
    TinySightError,
    Unsure,
    UpdateError,
)
from tinysight_contract.scalars import Count

__all__ = ["PROBLEM", "Problem", "Told", "problem_of"]

PROBLEM: Final = "application/problem+json"


class Told(Struct, frozen=True, kw_only=True):
    """A problem, as RFC 9457 writes it.

    Attributes:
        type: ``about:blank``: the status says which kind it is.
        title: the status in words.
        status: of the answer.
        detail: what is wrong.
        mend: what to do.
        revision: of the desired state as it is now, when another one was given; else it is missing.
    """

    type: str = "about:blank"
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    mend: str
    revision: Count | UnsetType = UNSET


class Problem(Exception):  # noqa: N818 -- it is an answer
    """An answer that says what is wrong.

    Args:
        status: of the answer.
        what: is wrong, one sentence.
        mend: what to do, one sentence.
        headers: that go with it.
        revision: of the desired state as it is now; None to say nothing of it.
    """

    def __init__(
        self, status: int, what: str, *, mend: str, headers: dict[str, str] | None = None, revision: int | None = None
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.mend, self.headers, self.revision = status, what, mend, headers or {}, revision

    def answer(self) -> Response:
        """As it is sent."""
        told = Told(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.what,
            mend=self.mend,
            revision=UNSET if self.revision is None else self.revision,
        )
        body = msgspec.json.encode(told)
        return Response(body, status_code=self.status, headers=self.headers, media_type=PROBLEM)


def problem_of(error: TinySightError) -> Problem:
    """What an error means for whoever asked over HTTP."""
    if isinstance(error, NoSuch):
        return Problem(404, error.what, mend=error.mend)
    if isinstance(error, ConfigError | ContractError | UpdateError):
        return Problem(422, error.what, mend=error.mend)
    if isinstance(error, Unsure):  # nothing that tries again by itself shall do so
        return Problem(503, error.what, mend=error.mend)
    if isinstance(error, BrokerError | NotLeading | StateGone):
        return Problem(503, error.what, mend=error.mend, headers={"Retry-After": "5"})
    if isinstance(error, Outdated):
        return Problem(409, error.what, mend=error.mend, revision=error.revision)
    if isinstance(error, FleetError):
        return Problem(409, error.what, mend=error.mend)
    return Problem(500, error.what, mend=error.mend)
