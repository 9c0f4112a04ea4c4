"""Whoever holds the broker, or the fleet's server, can ask a device for anything; it runs what was signed, or nothing.

The real updates with a real store, a real repository and the real memory of what was asked. What is forged, replayed
and put into another order here are documents of ``desired``.
"""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import CameraState, Desired, DesiredState, encode, utc_now
from tinysight_contract.updates import Code, Release
from tinysight_edge.config.reloader import TAKE_S, Reloader
from tinysight_edge.config.types import UpdateConfig
from tinysight_edge.store import Store
from tinysight_edge.units import Seconds
from tinysight_edge.update import selftest
from tinysight_edge.update.updater import Updater

MOST = 2**53 - 1


class Captured:
    """A device whose broker somebody else has."""

    def __init__(self, player: Any, store: Store, folder: Path, eventually: Any) -> None:
        self.player, self.store, self.eventually = player, store, eventually
        (folder / "a.bundle").touch()
        (folder / "agent.toml").write_text(
            'site = "s"\ndevice = "d"\nstate = "state"\nbroker = {url = "mqtt://h"}\nmodel = {bundle = "a.bundle"}\n'
            'cameras.gate.source = "0"\n'
        )
        self.reloader, self._now_s = Reloader(folder / "agent.toml", folder / "memory", environ={}), 0.0
        self.reloader.start(self._now_s)

    def hear(self, *payloads: bytes) -> None:
        """What comes as ``desired``; then the device has looked at it, and settled what it asks for."""
        for payload in payloads:
            self.reloader.ask(payload)
        self._now_s += TAKE_S
        self.reloader.poll(self._now_s)
        wish = self.player.wish = self.reloader.wish
        looks = self.player.looks
        self.eventually(lambda: self.player.looks > looks + 2)
        if wish is not None:
            self.eventually(lambda: (said := self.player.answers[-1]).digest == wish.digest and self.is_settled(said))

    @staticmethod
    def is_settled(said: Any) -> bool:
        return said.state not in {DesiredState.WAITING, DesiredState.TRIAL} or said.due_at is not None

    def state(self) -> DesiredState:
        """Of what is asked for."""
        found: DesiredState = self.player.answers[-1].state
        return found

    @property
    def active(self) -> Release:
        found = self.store.state().active
        assert found is not None
        return found


@pytest.fixture
def digests(raw_of: Callable[[str], bytes]) -> dict[str, str]:
    """By version."""
    return {
        each: Bundle.parse(raw_of(each), source=each).digest for each in ("1.5.0", "2.0.0", "3.0.0", "9.0.0", "9.1.0")
    }


@pytest.fixture
def device(
    player: Any, store: Store, raw_of: Callable[[str], bytes], simulator: ModuleType, start: Callable[[], Updater],
    eventually: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Captured:  # fmt: skip
    """One on 1.0.0; its project has signed 1.5.0, 2.0.0 and 3.0.0, and the repository's server holds more than that."""
    monkeypatch.setattr(selftest, "run_selftest", lambda *_, **__: selftest.Verdict())
    repository = simulator.Repository("belt", "cats", now=utc_now())
    for version in ("1.5.0", "2.0.0", "3.0.0"):
        repository.add(f"belt/belt-{version}.bundle", raw_of(version), release=int(version[0]))
    repository.publish()
    folder = repository.write(tmp_path / "repo")
    for version in ("9.0.0", "9.1.0"):
        digest = Bundle.parse(raw_of(version), source=version).digest
        (folder / "targets" / "belt" / f"{digest}.belt-{version}.bundle").write_bytes(raw_of(version))
    repository.add("cats/belt-9.1.0.bundle", raw_of("9.1.0"), release=9)  # it was signed, and never published
    (store.trust / "root.json").write_bytes(repository.files["metadata/1.root.json"])
    player.config = replace(player.config, update=UpdateConfig(repository=str(folder), trial=Seconds(0.1)))
    start()
    return Captured(player, store, tmp_path, eventually)


def forged(digests: dict[str, str]) -> list[dict[str, Any]]:
    """Wishes that nothing signed stands behind."""
    return [
        {"bundle": digests["9.0.0"], "target": "belt/belt-9.0.0.bundle"},
        {"bundle": digests["9.0.0"], "target": "belt/belt-2.0.0.bundle"},
        {"bundle": digests["2.0.0"], "target": "belt/belt-3.0.0.bundle"},
        {"bundle": digests["2.0.0"], "target": "cats/belt-2.0.0.bundle"},
        {"bundle": digests["9.1.0"], "target": "cats/belt-9.1.0.bundle"},
        {"bundle": digests["9.0.0"], "target": "../repo/targets/belt/x-9.0.0.bundle"},
        {"bundle": digests["9.0.0"], "target": "/etc/passwd"},
        {"bundle": digests["9.0.0"], "target": "https://evil.example.com/belt-9.0.0.bundle"},
        {"bundle": digests["9.0.0"], "target": f"belt/{digests['9.0.0']}.belt-9.0.0.bundle"},
        {"bundle": digests["9.0.0"]},
        {"bundle": "0" * 64, "target": ""},
    ]


NONSENSE = [
    b"{", b"\xff", b"[]", b'{"revision": 1e99}', b'{"revision": 9007199254740993}', b'{"revision": 5, "bundle": "x"}',
    b'{"revision": 5, "window": "99:99-00:00"}', b'{"revision": 5, "rollout": "../../x"}', b" " * 70_000, b"[" * 60_000,
]  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_asked_for_in_whatever_order_only_what_is_signed_is_loaded(
    device: Captured, digests: dict[str, str], seed: int
) -> None:
    dice, revision = random.Random(seed), 0
    documents: list[list[bytes]] = [[each] for each in NONSENSE]
    for wish in forged(digests):
        revision += dice.randint(1, 9)
        documents.append([encode(Desired(revision=revision, **wish))])
        documents.append([b"", encode(Desired(revision=dice.choice([0, 1, MOST]), **wish)), b""])
    dice.shuffle(documents)
    for each in documents:
        device.hear(*each)
    assert device.player.loads == []
    assert (device.active.version, device.store.state().candidate) == ("1.0.0", None)
    genuine = Desired(revision=1, bundle=digests["2.0.0"], target="belt/belt-2.0.0.bundle")
    device.hear(b"", encode(genuine))
    assert (device.active.version, device.player.loads) == ("2.0.0", ["2.0.0"])
    assert device.reloader.became.revision == 1


def test_an_older_release_that_was_signed_once_does_not_come_back(device: Captured, digests: dict[str, str]) -> None:
    old, new = (
        Desired(revision=n, bundle=digests[f"{n}.0.0"], target=f"belt/belt-{n}.0.0.bundle", rollout="r") for n in (2, 3)
    )
    device.hear(encode(old))
    device.hear(encode(new))
    assert device.active.version == "3.0.0"
    device.hear(encode(old))  # replayed as it was
    assert device.state() is DesiredState.APPLIED
    device.hear(b"", encode(old))  # after the device was made to forget
    assert device.state() is DesiredState.REFUSED
    device.hear(encode(replace(old, revision=MOST)))
    last = device.store.state().last
    assert last is not None
    assert (last.code, device.active.version) == (Code.TOO_OLD, "3.0.0")
    assert device.player.loads == ["2.0.0", "3.0.0"]


def test_reordered_and_repeated_wishes_end_at_the_newest_and_act_once(
    device: Captured, digests: dict[str, str]
) -> None:
    wishes = [
        encode(Desired(revision=number, bundle=digests[version], target=f"belt/belt-{version}.bundle"))
        for number, version in enumerate(("1.5.0", "2.0.0", "3.0.0"), 1)
    ]
    device.hear(wishes[2], wishes[0], wishes[1], wishes[2], wishes[0])
    for each in (*wishes, *reversed(wishes)):
        device.hear(each)
    assert (device.active.version, device.player.loads) == ("3.0.0", ["3.0.0"])
    assert device.reloader.became.revision == 3


@pytest.mark.parametrize(
    "config",
    [
        {"update": {"repository": "https://evil.example.com"}},
        {"update": {"max_slowdown": 100.0, "trial": "1s"}},
        {"fleet": {"url": "https://evil.example.com"}},
        {"model": {"store": "elsewhere"}},
    ],
)
def test_who_holds_the_broker_can_neither_name_another_repository_nor_another_server(
    device: Captured, config: dict[str, Any]
) -> None:
    device.reloader.note_camera("gate", CameraState.ONLINE)
    for _ in range(5):  # its file has stood its trial
        device.hear()
    device.hear(encode(Desired(revision=1, config=config)))
    assert "not changed from outside" in dict(device.reloader.became.refused)[next(iter(config))]
    assert device.reloader.now.running.overlay is None
