"""Rollouts whose controller, broker, database, devices or clocks fail.

Real controllers on real brokers and databases; devices that are simulated, and check real signatures as real ones do.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysight_deploy.fleet.types import Outcome, Phase


@pytest.fixture(scope="session")
def fleets(module: Callable[[str], ModuleType]) -> ModuleType:
    """``fleet_field.py``: brokers, devices, controllers."""
    return module("faults/fleet_field")


@pytest.fixture
def make_field(fleets: Any, shops: Any, mosquitto: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a fleet that ends with the test."""
    with ExitStack() as ending:
        yield lambda **given: ending.enter_context(fleets.field_of(mosquitto, shops, tmp_path, **given))


@pytest.fixture
def zygote(fleets: Any) -> Iterator[Any]:
    """Starts controllers in processes of their own; they end with the test."""
    made = fleets.Zygote()
    yield made
    made.close()


def test_a_rollout_goes_through_its_stages(make_field: Any, fleets: Any) -> None:
    field = make_field()
    rollout = field.begin()
    with fleets.leading(field):
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    assert set(field.active().values()) == {field.second.digest}
    field.check_once(rollout.id)


def test_a_controller_is_killed_again_and_again(make_field: Any, fleets: Any, zygote: Any) -> None:
    field, dice = make_field(), random.Random(8)
    rollout = field.begin()
    lives = 0
    while field.phase(rollout.id) is not Phase.DONE:
        lives += 1
        assert lives < 60, field.state.rollout(rollout.id)
        pid = zygote.start(field, f"life-{lives}", dies_at=dice.randint(2, 6))
        fleets.until(lambda: not fleets.alive(pid) or field.phase(rollout.id) is Phase.DONE, "it neither ends nor dies")
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    print(lives)
