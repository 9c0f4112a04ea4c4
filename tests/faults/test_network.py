"""A network that swallows, drags, cuts and forgets, and a broker that refuses: the reader hears all in the end.

The agent speaks through a proxy to the real broker, the reader to that directly.
"""

import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.messages import Event, EventType, Health, State, decode
from tinysight_edge.outbox import Outbox

GOLDEN = Path(__file__).parents[1] / "golden"
BELT = 'source = "synthetic:belt"'


class Doors:
    """Ways into one broker beside the open one: by password, and by certificate with TLS.

    Attributes:
        folder: of the files that the broker and the agent use.
    """

    FILES: Final = {"ca": "ca.crt", "cert": "device.crt", "key": "device.key"}

    def __init__(self, folder: Path, pki: Path) -> None:
        self.folder, self._pki = folder, pki
        self.by_password, self.by_certificate = self.free(), self.free()
        shutil.copy(pki / "ca.crt", folder / "ca.crt")
        self.let_in("right")
        self.renew("broker", "broker")

    @staticmethod
    def free() -> int:
        """A port that nobody uses."""
        with socket.socket() as each:
            each.bind(("127.0.0.1", 0))
            return int(each.getsockname()[1])

    def let_in(self, password: str) -> None:
        """Who comes by password."""
        command = ["mosquitto_passwd", "-b", "-c", str(self.folder / "passwords"), "cam", password]
        subprocess.run(command, check=True, timeout=20)

    def renew(self, name: str, by: str) -> None:
        """Replace a certificate and its key."""
        for kind in ("crt", "key"):
            shutil.copy(self._pki / f"{by}.{kind}", self.folder / f"{name}.{kind}")

    def shows_its_certificate(self) -> bool:
        """Whether the broker shows the certificate that lies there now, to whoever asks."""
        shown = ssl.get_server_certificate(("127.0.0.1", self.by_certificate), timeout=5)
        return shown.split() == (self.folder / "broker.crt").read_text().split()

    @property
    def settings(self) -> str:
        """For Mosquitto."""
        return (
            "per_listener_settings true\nallow_anonymous true\n"
            f"listener {self.by_password} 127.0.0.1\nallow_anonymous false\npassword_file {self.folder}/passwords\n"
            f"listener {self.by_certificate} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n"
            f"cafile {self.folder}/ca.crt\ncertfile {self.folder}/broker.crt\nkeyfile {self.folder}/broker.key\n"
        )


@pytest.fixture
def doors(tmp_path: Path, pki: Path) -> Doors:
    """The guarded ways into the broker of this test."""
    (tmp_path / "doors").mkdir()
    return Doors(tmp_path / "doors", pki)


@pytest.fixture
def mosquitto(make_mosquitto: Any, doors: Doors) -> Any:
    """A broker with one door that is open and two that are guarded."""
    broker = make_mosquitto(doors.settings)
    broker.start()
    return broker


@pytest.fixture
def proxy(mosquitto: Any, make_proxy: Any) -> Any:
    """The network between agent and broker."""
    return make_proxy(mosquitto.port)


def over(url: str, more: str = "") -> str:
    """``[broker]`` of an agent."""
    return f'url = "{url}"\nkeep_alive = "2s"\n{more}'


def prove(ear: Any) -> str:
    """All came, each object with its start, and what came twice can be told; in words."""
    ear.check_all_came()
    ear.check_lives()
    return f"0 missing, {ear.twice()} twice"


def black_hole(proxy: Any) -> None:
    proxy.swallows = True


def deaf_to_acks(proxy: Any) -> None:
    proxy.swallows_acks = True


def half_open(proxy: Any) -> None:
    proxy.swallows = True  # nor does a new connection come about
    proxy.forget_broker()


def half_open_at_the_broker(proxy: Any) -> None:
    proxy.forget_client()


SILENT = "nothing is acknowledged"
NETWORKS = (
    ("network swallows everything, without a reset", black_hole, State.OFFLINE, SILENT),
    ("network swallows acknowledgements alone", deaf_to_acks, State.ONLINE, SILENT),
    ("the broker's side of the connection is gone", half_open, State.OFFLINE, SILENT),
    ("the agent's side of the connection is gone", half_open_at_the_broker, State.ONLINE, ""),
)
"""Fault, how to make it, what status the reader hears of it (online: of a new session), and why the session ended."""


def test_a_network_that_fails_without_a_word_costs_no_event(
    proxy: Any, ear: Any, make_device: Any, eventually: Any, tell: Any
) -> None:
    device = make_device(gate=BELT, broker=over(proxy.url))
    _, first = ear.event()
    for fault, fail, state, why in NETWORKS:
        ends = ear.wait(Health, lambda _: True)[1].broker.ended.get(why, 0)
        twice, fails_s = ear.twice(), time.monotonic()
        fail(proxy)
        found_s = ear.status(state, since_s=fails_s)
        proxy.heal()
        heals_s = time.monotonic()
        online_s = ear.status(State.ONLINE, since_s=found_s)
        well_s, _ = ear.event(lambda event: not event.replayed, since_s=max(heals_s, online_s))
        if why:
            ear.wait(Health, lambda health, why=why, ends=ends: health.broker.ended.get(why, 0) > ends, since_s=heals_s)
        if fail is deaf_to_acks:  # nothing is missing of what comes again: live events may come before it
            eventually(lambda twice=twice: ear.twice() > twice)
        will = "`status` offline by its will; " if state is State.OFFLINE else ""
        said = f"{will}{ear.told(since_s=fails_s)}; {prove(ear)} so far"
        more = ear.twice() - twice
        again = [event for _, event in ear.of(Event, since_s=found_s) if event.replayed]
        assert fail is half_open_at_the_broker or again, "what waited came"
        assert fail is not deaf_to_acks or 0 < more <= len(again), "what nobody acknowledged comes again"
        tell(fault, found_s=found_s - fails_s, well_s=well_s - heals_s, published=said)
    assert {event.boot_id for _, event in ear.of(Event)} == {first.boot_id}
    assert device.ends == []


def test_live_events_do_not_wait_for_a_backlog(
    proxy: Any, ear: Any, make_device: Any, tell: Any, tmp_path: Path
) -> None:
    backlog = 2000
    (tmp_path / "state").mkdir()
    outbox = Outbox(tmp_path / "state" / "outbox.db")
    example = replace(
        decode((GOLDEN / "event.json").read_bytes(), Event),
        site="plant-1",
        device="cam-1",
        camera="gate",
        boot_id="old",
    )
    for seq in range(1, backlog + 1):
        ends = {"type": EventType.END, "ended_at": example.seen_at} if seq % 2 == 0 else {}
        event = replace(
            example, **{"type": EventType.START, "ended_at": None, **ends}, seq=seq, id=f"o{(seq + 1) // 2}"
        )
        outbox.put(str(t.EventTopic("plant-1", "cam-1", "gate")), event)
    outbox.close()
    proxy.ack_every_s = 1 / 100  # on a busy machine it is some seconds before the camera is there
    begun_s = time.monotonic()
    device = make_device(gate=BELT, broker=over(proxy.url))
    ear.event(lambda event: event.boot_id != "old")
    proxy.ack_every_s = 1 / 400
    ear.event(lambda event: event.boot_id == "old" and event.seq == backlog)
    came = [event for _, event in ear.of(Event)]
    old = [place for place, event in enumerate(came) if event.boot_id == "old"]
    live = [place for place, event in enumerate(came) if event.boot_id != "old"]
    assert [came[place].seq for place in old] == list(range(1, backlog + 1)), "the backlog comes in its order"
    assert all(came[place].replayed for place in old)
    assert not any(came[place].replayed for place in live)
    assert live[0] < old[len(old) // 2], "the first does not wait for half of the backlog"
    assert sum(place < old[-1] for place in live) >= 3, "nor do those after it"
    assert proxy.most_unacknowledged <= 128
    meanwhile = sum(place < old[-1] for place in live)
    said = f"{backlog} events `replayed`, {meanwhile} live ones between them; {prove(ear)}"
    tell("slow broker with a backlog", well_s=ear.event(lambda e: e.seq == backlog)[0] - begun_s, published=said)
    assert device.ends == []


def page(port: int) -> str:
    """What Prometheus gets; empty while nobody serves it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return ""


def test_a_login_that_is_refused_is_a_state_and_not_a_loop(
    mosquitto: Any, ear: Any, doors: Any, make_proxy: Any, make_device: Any, eventually: Any, tell: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("right")
    proxy, port = make_proxy(doors.by_password), doors.free()
    login = f'username = "cam"\npassword_file = "{tmp_path / "secret"}"'
    more = f"prometheus_port = {port}"
    device = make_device(gate=BELT, broker=over(proxy.url, login), more=more)
    ear.event()
    changed_s, before = time.monotonic(), len(proxy.links)
    doors.let_in("another")
    mosquitto.process.send_signal(signal.SIGHUP)  # who is there with the old one is dropped
    eventually(lambda: 'code="broker.refused"' in page(port))
    found_s = time.monotonic()
    time.sleep(3.0)
    assert len(proxy.links) - before <= 2, "it is not asked again and again"
    assert "refuses the connection" in device.log
    assert "Check the user name, the password" in device.log
    assert 'code="broker.refused"' in page(port), "it stands until it is mended"
    waiting = [line for line in page(port).splitlines() if line.startswith("tinysight_outbox_events ")]
    assert float(waiting[0].split()[1]) > 0, "events wait"
    assert device.ends == []
    doors.let_in("right")
    mosquitto.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    device.end()  # what waits half a minute is tried in tests/edge
    back_s = time.monotonic()
    device.start()
    well_s, _ = ear.event(lambda event: event.replayed, since_s=back_s)
    said = f"problem `broker.refused` for Prometheus, its mend in the log, no more than 2 attempts in 3 s; {prove(ear)}"
    tell("broker refuses the login", found_s=found_s - changed_s, well_s=well_s - back_s, published=said)


CERTIFICATES = (
    (
        "the broker's certificate has expired",
        "broker",
        "broker-expired",
        "Renew the broker's certificate, or set this machine's clock right.",
    ),
    (
        "the device's certificate has expired",
        "device",
        "device-expired",
        "Give this device one that the broker's CA signed and that has not expired",
    ),
)
"""Fault, whose certificate, by which it is replaced, and what the log advises."""


def test_an_expired_certificate_is_told_and_when_it_is_renewed_all_come(
    mosquitto: Any, ear: Any, doors: Any, make_proxy: Any, make_device: Any, eventually: Any, tell: Any
) -> None:
    proxy = make_proxy(doors.by_certificate, tls=True)
    doors.renew("device", "device")
    files = "".join(f'{kind}_file = "{doors.folder / file}"\n' for kind, file in doors.FILES.items())
    device = make_device(gate=BELT, broker=over(proxy.url.replace("mqtt:", "mqtts:"), files))
    ear.event()
    for fault, name, bad, mend in CERTIFICATES:
        doors.renew(name, bad)
        mosquitto.process.send_signal(signal.SIGHUP)  # it reads its certificates again, and drops nobody
        eventually(doors.shows_its_certificate)
        expires_s = time.monotonic()
        proxy.cut()
        eventually(lambda mend=mend: mend in device.log)
        found_s = time.monotonic()
        time.sleep(2.5)  # it goes on seeing: two events a second
        doors.renew(name, name)
        mosquitto.process.send_signal(signal.SIGHUP)
        renewed_s = time.monotonic()
        well_s, _ = ear.event(lambda event: not event.replayed, since_s=renewed_s)
        ear.event(lambda event: event.replayed, since_s=renewed_s)  # beside the live ones, which go first
        said = f"`status` offline by its will, the mend in the log; {ear.told(since_s=expires_s)}; {prove(ear)}"
        tell(fault, found_s=found_s - expires_s, well_s=well_s - renewed_s, published=said)
    assert device.ends == []
