"""What becomes of the bundle that the operator asks for."""

import pytest
from msgspec.structs import replace

from tinysight_contract.messages import DesiredState, utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.update.update import Bad, State
from tinysight_edge.update.wish import NO_REPOSITORY, Standing, Wish, answer, pause_s

NOW = utc_now()
OLD, NEW = (
    Release(target=f"pets/pets-{n}.bundle", digest=str(n) * 64, size_bytes=1, name="pets", version=f"{n}", release=n)
    for n in (1, 2)
)
WISH = Wish(NEW.digest, NEW.target)
COMING = Update(target=NEW.target, bundle=NEW, state=UpdateState.TRIAL, at=NOW)


def tried(code: Code) -> Update:
    return Update(target=NEW.target, state=UpdateState.FAILED, at=NOW, code=code, reason="so it is")


def at(state: UpdateState) -> State:
    return State(active=OLD, candidate=replace(COMING, state=state))


def ended(state: UpdateState, code: Code) -> State:
    last = replace(COMING, state=state, code=code, reason="so it was")
    return State(active=OLD, last=last, bad=[Bad(digest=NEW.digest, code=code)])


@pytest.mark.parametrize(
    ("state", "before", "became", "fetch"),
    [
        pytest.param(State(active=NEW), None, DesiredState.APPLIED, False, id="it runs"),
        pytest.param(State(active=OLD), None, DesiredState.WAITING, True, id="it is new"),
        pytest.param(at(UpdateState.DOWNLOADING), None, DesiredState.WAITING, True, id="a kill broke its way off"),
        pytest.param(at(UpdateState.VERIFIED), None, DesiredState.WAITING, False, id="here"),
        pytest.param(at(UpdateState.SELFTEST), None, DesiredState.WAITING, False, id="tested"),
        pytest.param(at(UpdateState.TRIAL), None, DesiredState.TRIAL, False, id="tried"),
        pytest.param(ended(UpdateState.FAILED, Code.WRONG), None, DesiredState.REFUSED, False, id="answers wrong"),
        pytest.param(ended(UpdateState.ROLLED_BACK, Code.SLOW), None, DesiredState.ROLLED_BACK, False, id="too slow"),
        pytest.param(
            ended(UpdateState.ROLLED_BACK, Code.OPERATOR), None, DesiredState.ROLLED_BACK, False, id="a person's"
        ),
        pytest.param(
            State(active=OLD, bad=[Bad(digest=NEW.digest, code=Code.HUNG)]), None, DesiredState.REFUSED, False,
            id="failed long ago",
        ),
        pytest.param(State(active=OLD), tried(Code.UNREACHABLE), DesiredState.WAITING, True, id="no network"),
        pytest.param(State(active=OLD), tried(Code.EXPIRED), DesiredState.REFUSED, True, id="may be mended there"),
        pytest.param(State(active=OLD), tried(Code.MALFORMED), DesiredState.REFUSED, True, id="somebody's web page"),
        pytest.param(State(active=OLD), tried(Code.HARDWARE), DesiredState.REFUSED, False, id="never fits"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_wish(state: State, before: Update | None, became: DesiredState, fetch: bool) -> None:
    found = answer(WISH, state, repository="repo", tried=before)
    assert (found.digest, found.state, found.fetch) == (NEW.digest, became, fetch)
    assert found.reason or became in {DesiredState.APPLIED, DesiredState.TRIAL}


def test_without_a_repository_or_a_target_it_is_said_what_to_do() -> None:
    found = answer(WISH, State(active=OLD), repository=None)
    assert (found.state, found.reason, found.fetch) == (DesiredState.REFUSED, NO_REPOSITORY, False)
    found = answer(Wish(NEW.digest, None), State(active=OLD), repository="repo")
    assert (found.state, found.fetch) == (DesiredState.REFUSED, False)
    assert "`target`" in found.reason
    assert answer(WISH, State(active=NEW), repository=None).state is DesiredState.APPLIED


def test_pauses_grow_to_an_hour_and_keep_devices_apart() -> None:
    assert [pause_s(failures, 0.5) for failures in (1, 2, 3, 99)] == [10.0, 20.0, 40.0, 3600.0]
    assert pause_s(1, 0.0) < pause_s(1, 1.0) <= 12.5


def test_what_is_active_and_cannot_run_is_not_applied() -> None:
    found = answer(WISH, State(active=NEW), repository="repo", unfit=(NEW.digest, "It does not load."))
    assert (found.state, found.reason, found.fetch) == (DesiredState.REFUSED, "It does not load.", False)


B, C = "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("looks", "over"),
    [
        pytest.param([(B, B), (B, None)], True, id="taken back"),
        pytest.param([(None, B), (B, B), (B, C)], True, id="replaced"),
        pytest.param([(B, B), (B, "vain")], True, id="replaced by what cannot be"),
        pytest.param([(B, B), (B, None), (B, B)], False, id="wished for again"),
        pytest.param([(B, B), (B, None), (B, None)], True, id="until it has ended"),
        pytest.param([(B, C), (B, C)], False, id="a person's, and the wish stood before"),
        pytest.param([(None, None), (None, C), (B, C)], False, id="a person's, which came after the wish"),
        pytest.param([(B, None), (B, C)], True, id="a person's, and the wish is newer"),
        pytest.param([(B, C), (B, None)], False, id="a person's, and a wish for something else is taken back"),
        pytest.param([(B, None), (B, "vain")], False, id="a person's, and the wish cannot be fulfilled"),
        pytest.param([(B, None), (B, "vain"), (B, C)], True, id="a person's, until it can"),
    ],
)
def test_whoever_asks_last_has_his_way(looks: list[tuple[str | None, str | None]], over: bool) -> None:
    standing = Standing()
    for coming, asked in looks:
        wish = None if asked is None else Wish(C if asked == "vain" else asked, "belt/belt.bundle")
        found = standing.is_over(coming, wish, vain=asked == "vain")
    assert found is over


def test_what_a_wish_has_begun_to_fetch_is_its_own() -> None:
    standing = Standing()
    standing.is_over(None, Wish(B, None))
    standing.wished(B)
    assert standing.is_over(B, None)
