"""``tinysight rollout``: bring a release to many devices in stages; look at it, stop it, go on, take it back."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tinysight_contract.errors import ConfigError
from tinysight_deploy.fleet.commands.cli_common import (
    AsJson,
    BrokerOption,
    CaOption,
    FleetOption,
    InventoryOption,
    TokenOption,
    Where,
)
from tinysight_deploy.fleet.commands.cli_policy import (
    AtOnce,
    Deadline,
    Hold,
    MaxAgreement,
    MaxDrift,
    MaxFailures,
    MaxLatency,
    MinConfirmed,
    Rate,
    Soak,
    Stages,
    Window,
    policy_of,
)
from tinysight_deploy.places import RepoOption, StateOption
from tinysight_edge.console import console

if TYPE_CHECKING:
    from tinysight_deploy.fleet.server import forms
    from tinysight_deploy.fleet.server.desk import Answers
    from tinysight_deploy.fleet.types import Rollout

__all__ = ["rollout_app"]

rollout_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)

FEW: Final = 20
MOST: Final = 1000
"""Rollouts that are asked for at once, to find one and to list all."""

Which = Annotated[str | None, typer.Argument(help="The rollout; the newest that goes on unless given.")]
Id = Annotated[str, typer.Argument(help="The rollout, as `tinysight rollout list` names it.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.", show_default=False)]


@rollout_app.callback()
def rollout_root() -> None:
    """Bring a release to many devices in stages, each judged before the next."""


@rollout_app.command("start")
def start(
    bundle: Annotated[
        str, typer.Argument(help="The bundle's file, NAME@VERSION, or the target's path.", show_default=False)
    ],
    *,
    group: Annotated[str, typer.Option(help="all, site:NAME, or a group of the inventory.", show_default=False)],
    stages: Stages = "1,5%,25%,100%",
    soak: Soak = "30m",
    max_failures: MaxFailures = "2%",
    min_confirmed: MinConfirmed = "95%",
    max_latency_regression: MaxLatency = "20%",
    max_agreement_drop: MaxAgreement = "none",
    max_drift: MaxDrift = None,
    deadline: Deadline = "1h",
    rate: Rate = 600,
    at_once: AtOnce = 1000,
    window: Window = None,
    hold: Hold = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state: StateOption = None,
    broker: BrokerOption = None,
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    fleet: FleetOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout, and lead it until it ends; with --fleet the server leads.

    Ctrl-C leaves it as it is: `tinysight rollout run` or a server goes on with it. Status 1 when it ended otherwise
    than done.
    """
    from tinysight_deploy.fleet.server import forms

    policy = policy_of(
        stages=stages, soak=soak, max_failures=max_failures, min_confirmed=min_confirmed,
        max_latency_regression=max_latency_regression, max_agreement_drop=max_agreement_drop, max_drift=max_drift,
        deadline=deadline, rate=rate, at_once=at_once, window=window, hold=hold,
    )  # fmt: skip
    where = Where(state, broker, repo, inventory, fleet, token_file, ca)
    form = forms.Begin(bundle=_named(bundle), group=group, policy=policy)
    with where.answers(hear=True, make=True) as answers:
        if not yes:
            _ask(answers, form)
        begun = answers.begin(form)
    if fleet is not None:
        _print(begun, as_json=as_json, text=f"{begun.id} has begun. See `tinysight rollout status {begun.id}`.")
        return
    console.print(f"{begun.id} has begun. Ctrl-C leaves it to be gone on with by `tinysight rollout run`.")
    _lead(where, only=begun.id, as_json=as_json)


@rollout_app.command("plan")
def plan_(
    bundle: Annotated[
        str, typer.Argument(help="The bundle's file, NAME@VERSION, or the target's path.", show_default=False)
    ],
    *,
    tape: Annotated[
        Path,
        typer.Option("--on", help="What was recorded by `tinysight watch --record FILE`.", show_default=False),
    ],
    group: Annotated[str, typer.Option(help="all, site:NAME, or a group of the inventory.")] = "all",
    stages: Stages = "1,5%,25%,100%",
    soak: Soak = "30m",
    max_failures: MaxFailures = "2%",
    min_confirmed: MinConfirmed = "95%",
    max_latency_regression: MaxLatency = "20%",
    max_agreement_drop: MaxAgreement = "none",
    max_drift: MaxDrift = None,
    deadline: Deadline = "1h",
    rate: Rate = 600,
    at_once: AtOnce = 1000,
    hold: Hold = "",
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    as_json: AsJson = False,
) -> None:
    """Say what a rollout would do if the devices did as they did before. Asks nobody, and needs no broker."""
    from tinysight_deploy.devices.inventory import Inventory
    from tinysight_deploy.fleet.commands.showing import planned
    from tinysight_deploy.fleet.control.members import members
    from tinysight_deploy.fleet.deciding.dry_run import plan
    from tinysight_deploy.tables import show_table
    from tinysight_edge.simulate.tape import read_tape

    policy = policy_of(
        stages=stages, soak=soak, max_failures=max_failures, min_confirmed=min_confirmed,
        max_latency_regression=max_latency_regression, max_agreement_drop=max_agreement_drop, max_drift=max_drift,
        deadline=deadline, rate=rate, at_once=at_once, window=None, hold=hold,
    )  # fmt: skip
    where = Where(repo=repo, inventory=inventory)
    size = Path(bundle).stat().st_size if Path(bundle).is_file() else where.repository().find(bundle).size_bytes
    book = where.book()
    known = None if book is None else Inventory(book).devices()
    told = plan(
        read_tape(tape), policy, size_bytes=size, group=group, members=lambda heard: members(group, heard, known)
    )
    if as_json:
        _print(told, as_json=True)
    else:
        show_table(planned(told))


@rollout_app.command("run")
def run(
    *,
    state: StateOption = None,
    broker: BrokerOption = None,
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    as_json: AsJson = False,
) -> None:
    """Lead the rollouts that are not over, until all are. Ctrl-C leaves them as they are."""
    _lead(Where(state, broker, repo, inventory), only=None, as_json=as_json)


@rollout_app.command("status")
def status(
    which: Which = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once, on a terminal too.")] = False,
    state: StateOption = None,
    broker: BrokerOption = None,
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    fleet: FleetOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a rollout is: live on a terminal until it ends, else once. The gates need --fleet or --broker."""
    from tinysight_deploy.fleet.commands.following import show

    where = Where(state, broker, repo, inventory, fleet, token_file, ca)
    with where.answers() as answers:
        id_ = which or _newest(answers)
        if as_json:
            _print(answers.view(id_), as_json=True)
        else:
            every_s = 5.0 if fleet is None and broker is not None else 1.0  # each look is then a session at the broker
            live = not once and sys.stdout.isatty()
            show(lambda: where.renewed(answers).view(id_), live=live, every_s=every_s)


@rollout_app.command("list")
def list_rollouts(
    *,
    state: StateOption = None,
    fleet: FleetOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rollouts as one JSON list.")] = False,
) -> None:
    """List the rollouts, the newest first."""
    from tinysight_deploy.fleet.commands.showing import table_of
    from tinysight_deploy.tables import show_table

    with Where(state, fleet=fleet, token_file=token_file, ca=ca).answers() as answers:
        found = list(_all(answers, most=MOST))
    if as_json:
        _print(found, as_json=True)
    elif found:
        show_table(table_of(found))
    else:
        print("There are no rollouts. Begin one with `tinysight rollout start`.")


def _command(what: str, told: str) -> None:
    """Make a command of something that needs a rollout and a reason."""

    @rollout_app.command(what, help=told)
    def act(
        which: Id,
        *,
        reason: Reason = "",
        state: StateOption = None,
        fleet: FleetOption = None,
        token_file: TokenOption = None,
        ca: CaOption = None,
        as_json: AsJson = False,
    ) -> None:
        _act(Where(state, fleet=fleet, token_file=token_file, ca=ca), which, what, reason, as_json=as_json)


_command("pause", "Ask no further device and open no stage, until `resume`. Devices that were asked go on.")
_command("resume", "Go on after a pause, or after a gate has halted it. What was settled before no longer counts.")
_command("approve", "Let the next stage begin that waits for approval, once the one before it has passed.")


@rollout_app.command("abort")
def abort(
    which: Id,
    *,
    revert: Annotated[
        str | None,
        typer.Option(
            help="Bring this release to those that run the new one; its number must be above.", show_default=False
        ),
    ] = None,
    reason: Reason = "",
    state: StateOption = None,
    broker: BrokerOption = None,
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    fleet: FleetOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: AsJson = False,
) -> None:
    """End a rollout: what was not done is taken back, and with --revert what was done as well, by another rollout."""
    where = Where(state, broker if revert else None, repo, inventory, fleet, token_file, ca)
    _act(where, which, "abort", reason, revert=None if revert is None else _named(revert), as_json=as_json)


@rollout_app.command("why")
def why(
    device: Annotated[str, typer.Argument(help="SITE/DEVICE, or its name in the inventory.", show_default=False)],
    *,
    rollout: Annotated[
        str | None, typer.Option(help="The newest that goes on unless given.", show_default=False)
    ] = None,
    state: StateOption = None,
    broker: BrokerOption = None,
    repo: RepoOption = None,
    inventory: InventoryOption = None,
    fleet: FleetOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    as_json: AsJson = False,
) -> None:
    """Say why a device is, in a rollout, where it is: each gate with its figure."""
    from tinysight_deploy.fleet.commands.showing import reasons
    from tinysight_deploy.tables import show_table

    where = Where(state, broker, repo, inventory, fleet, token_file, ca)
    site, id_ = _device(device, where)
    with where.answers(hear=True) as answers:
        told = answers.why(rollout or _newest(answers), site, id_)
    if as_json:
        _print(told, as_json=True)
    else:
        show_table(reasons(told))


def _named(bundle: str) -> str:
    """A release as it is asked for: a file here by its digest, which is the same elsewhere."""
    from tinysight_contract.files import sha256_of

    path = Path(bundle)
    return sha256_of(path) if path.is_file() else bundle


def _ask(answers: "Answers", form: "forms.Begin") -> None:
    """Show what will happen, and ask once.

    Raises:
        ConfigError: there is nobody to ask.
        Abort: the answer is no.
    """
    from tinysight_deploy.fleet.commands.showing import preview

    told = answers.preview(form)
    console.print(preview(told, form.policy))
    if not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here whether that is meant.", mend="Give --yes if it is.")
    typer.confirm("Begin?", err=True, abort=True)


def _lead(where: Where, *, only: str | None, as_json: bool) -> None:
    from tinysight_deploy.fleet.commands.following import lead

    if where.broker is None:
        raise ConfigError("There is no broker to lead at.", mend="Give --broker.")
    with where.opened() as state:
        ended = lead(where, state, only=only)
        told = [state.rollout(each) for each in ended]
    if as_json:
        _print(told[0] if only else told, as_json=True)
    if any(each.phase != "done" for each in told):
        raise typer.Exit(1)


def _act(where: Where, id_: str, what: str, reason: str, *, revert: str | None = None, as_json: bool) -> None:
    from tinysight_deploy.fleet.commands.following import open_wishes
    from tinysight_deploy.fleet.server import forms

    with where.answers(hear=revert is not None) as answers:
        acted = answers.act(id_, what, forms.Act(reason=reason, revert=revert))
        left = open_wishes(answers.view(id_)) if what == "abort" else 0
    text = f"{acted.rollout.id} is {acted.rollout.phase} now."
    if left:
        led = "The server" if where.fleet else "`tinysight rollout run`, or whatever leads now,"
        text += f" {led} takes back what {left} device{'s' * (left != 1)} may still do of it."
    if acted.reverting is not None:
        text += f" {acted.reverting.id} has begun and takes it back."
    _print(acted, as_json=as_json, text=text)


def _newest(answers: "Answers") -> str:
    """The newest rollout that is not over, else the newest."""
    newest = None
    for each in _all(answers, most=FEW):
        if each.phase not in {"done", "aborted"}:
            return each.id
        newest = newest or each.id
    if newest is None:
        raise ConfigError("There are no rollouts.", mend="Begin one with `tinysight rollout start`.")
    return newest


def _all(answers: "Answers", *, most: int) -> "Iterator[Rollout]":
    """The rollouts, the newest first, asked for in pages of so many."""
    after: str | None = ""
    while after is not None:
        page = answers.rollouts(after=after, most=most)
        yield from page.items
        after = page.next


def _device(text: str, where: Where) -> tuple[str, str]:
    """Site and device of what a person writes."""
    from tinysight_contract.topics import check_id
    from tinysight_deploy.devices.inventory import Inventory

    site, slash, id_ = text.partition("/")
    if slash:
        return check_id(site, what="site"), check_id(id_, what="device")
    book = where.book()
    known = {} if book is None else Inventory(book).devices()
    if text not in known:
        raise ConfigError(f"The inventory has no device {text!r}.", mend="Write SITE/DEVICE.")
    return known[text].site, known[text].device


def _print(told: object, *, as_json: bool, text: str = "") -> None:
    import msgspec

    if as_json:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
    else:
        print(text)
