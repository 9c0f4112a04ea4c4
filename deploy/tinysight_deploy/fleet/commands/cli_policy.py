"""The rules of a rollout as options of a command line."""

from typing import Annotated

import msgspec
import typer

from tinysight_contract.errors import ConfigError
from tinysight_deploy.fleet.commands import options
from tinysight_deploy.fleet.types import Policy, parse_stages

__all__ = [
    "AtOnce",
    "Deadline",
    "Hold",
    "MaxAgreement",
    "MaxDrift",
    "MaxFailures",
    "MaxLatency",
    "MinConfirmed",
    "Rate",
    "Soak",
    "Stages",
    "Window",
    "policy_of",
]

Stages = Annotated[str, typer.Option(help="How many devices, or which share, have it when each is over.")]
Soak = Annotated[str, typer.Option(help="How long each stage is watched once all of it has an outcome.")]
MaxFailures = Annotated[str, typer.Option(help="Share of a stage that may fail or stay silent.")]
MinConfirmed = Annotated[str, typer.Option(help="Share of a stage's reached devices that have to confirm.")]
MaxLatency = Annotated[str, typer.Option(help="How much slower the median device may become; none for any.")]
MaxAgreement = Annotated[
    str, typer.Option(help="How far below all the share may be that both models see alike, such as 2pt; none for any.")
]
MaxDrift = Annotated[
    float | None, typer.Option(help="Distance from the signed reference that counts as failing, 0 to 1.", min=0, max=1)
]
Deadline = Annotated[str, typer.Option(help="A device that was reached and says nothing for so long is failing.")]
Rate = Annotated[int, typer.Option(help="Devices that are asked in a minute, at most.", min=1, max=100_000)]
AtOnce = Annotated[int, typer.Option(help="Devices that may be on their way at once.", min=1, max=100_000)]
Window = Annotated[
    str | None, typer.Option(help="When devices may begin, in their own time, such as 01:00-05:00.", show_default=False)
]
Hold = Annotated[str, typer.Option(help="Stages that wait for `approve`, such as 25%,100%.", show_default=False)]


def policy_of(
    *,
    stages: str,
    soak: str,
    max_failures: str,
    min_confirmed: str,
    max_latency_regression: str,
    max_agreement_drop: str,
    max_drift: float | None,
    deadline: str,
    rate: int,
    at_once: int,
    window: str | None,
    hold: str,
) -> Policy:
    """The rules, as they were written.

    Raises:
        ConfigError: one cannot be.
    """
    read = parse_stages(stages)
    failures, confirmed = options.share(max_failures, "--max-failures"), options.share(min_confirmed, "--min-confirmed")
    made = Policy(
        stages=read,
        soak_s=options.duration(soak, "--soak"),
        max_failures=1.0 if failures is None else failures,
        min_confirmed=0.0 if confirmed is None else confirmed,
        max_latency_regression=options.share(max_latency_regression, "--max-latency-regression", most=100.0),
        max_agreement_drop=options.points(max_agreement_drop, "--max-agreement-drop"),
        max_drift=max_drift,
        deadline_s=options.duration(deadline, "--deadline"),
        per_min=rate,
        at_once=at_once,
        window=window,
        hold=options.holds(hold, read),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(made), Policy)
    except msgspec.ValidationError as error:
        raise ConfigError(f"The rules cannot be so: {error}.", mend="See `tinysight rollout start --help`.") from error
