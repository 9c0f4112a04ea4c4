"""The broker is killed a hundred times and the agent twenty times: nothing that was told is missing."""

import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import cv2
import pytest

from tinysight_contract.messages import Event, EventType, Health, utc_now
from tinysight_edge.belt import Belt

BROKER_KILLS: Final = 100
AGENT_KILLS: Final = 20
EVENTS: Final = 10_000
FRAMES: Final = 3000
FPS: Final = 100
AWAY_S: Final = (0.0, 0.4)
UP_S: Final = (0.5, 1.0)  # events wait 0.2 s of it, for readers


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two belts, fast enough for half a hundred events a second from each."""
    folder = tmp_path_factory.mktemp("films")
    paths: list[Path] = []
    for seed in (1, 2):
        belt, paths = Belt(seed, speed_px=12.0), [*paths, folder / f"{seed}.mp4"]
        film = cv2.VideoWriter(str(paths[-1]), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (320, 240))
        for number in range(FRAMES):
            film.write(belt.frame(number)[0])
        film.release()
    return paths


def test_nothing_is_missing_after_a_hundred_kills_of_the_broker_and_twenty_of_the_agent(
    mosquitto: Any, ear: Any, make_device: Any, films: list[Path], tell: Any
) -> None:
    dice = random.Random(6)
    ear.subscribe(qos=0)
    device = make_device(**{f"belt{number}": f'source = "{films[number % 2]}"\nrealtime = true' for number in range(4)})
    device.restart_s = 0.1
    ear.event(camera="belt0")
    with_agent = set(dice.sample(range(BROKER_KILLS), AGENT_KILLS))
    killed, cycle, told = 0, 0, set[tuple[str, int]]()
    while cycle < BROKER_KILLS or len(told) < EVENTS or len({boot for boot, _ in told}) < AGENT_KILLS:
        also_agent = cycle in with_agent or (cycle >= BROKER_KILLS and cycle % 5 == 0)  # a busy machine starts slowly
        if also_agent:
            shot = threading.Timer(dice.uniform(0.0, AWAY_S[1] + UP_S[1]), device.kill)
            shot.start()
            killed += 1
        mosquitto.kill()
        time.sleep(dice.uniform(*AWAY_S))
        with device.held():  # the reader shall be there first: what nobody listens to is not lost by the device
            mosquitto.start()
            ear.listen()
        time.sleep(dice.uniform(*UP_S))
        if also_agent:
            shot.join()
        cycle += 1
        if cycle >= BROKER_KILLS:
            told = {(event.boot_id, event.seq) for _, event in ear.of(Event)}
    killed_at = utc_now()
    ear.wait(Health, lambda health: health.at > killed_at)  # an end amid a start leaves what it found to the next one
    ear.check_all_came()
    device.end()
    ear.check_all_came()

    events = [event for _, event in ear.of(Event)]
    numbers = defaultdict(set)
    for event in events:
        numbers[event.boot_id].add(event.seq)
    assert {boot: len(seqs) for boot, seqs in numbers.items()} == {boot: max(seqs) for boot, seqs in numbers.items()}
    assert len(numbers) >= AGENT_KILLS
    named = {(event.boot_id, event.seq): event for event in events}
    assert len(named) >= EVENTS
    kinds = Counter((event.id, event.type) for event in named.values())
    begun = {id_ for id_, kind in kinds if kind is EventType.START}
    ended = {id_ for id_, kind in kinds if kind is EventType.END}
    assert begun == ended, "each that came has left, and nobody left who had not come"
    assert max(count for (_, kind), count in kinds.items() if kind is EventType.START) == 1
    again = Counter((event.boot_id, event.seq) for event in events)
    for event in events:
        if again[event.boot_id, event.seq] > 1:
            first = named[event.boot_id, event.seq]
            assert (event.id, event.type, event.seen_at) == (first.id, first.type, first.seen_at)
    twice = len(events) - len(named)
    restarted = sum(event.reason == "restarted" for event in named.values())
    said = (
        f"{len(named):,} events of {len(numbers)} starts, 0 missing by `seq` and by `id`; "
        f"{sum(event.replayed for event in named.values()):,} `replayed`, {twice} twice, {restarted} `end` (restarted)"
    )
    assert killed >= AGENT_KILLS
    tell("broker killed 100 times, agent 20 times", published=said)
