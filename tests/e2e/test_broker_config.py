"""``tinysight broker config`` against hostile clients: what it writes runs in a real Mosquitto, and holds.

That something did not arrive is shown by what was sent after it and did: a broker keeps the order.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tinysight_contract.errors import ConfigError, ContractError
from tinysight_deploy.brokers import pki
from tinysight_deploy.brokers.folder import Wishes, configure

MINE, OTHER, SITE = "belt-7", "gate-1", "plant-1"
AT_MINE, AT_OTHER = f"tinysight/v1/{SITE}/{MINE}", f"tinysight/v1/{SITE}/{OTHER}"
AS_ROOT = ["user root"] if os.geteuid() == 0 else []  # else mosquitto gives up rights and cannot read the test's files


class RefusedError(Exception):
    """The broker did not let a client in."""


def is_refused(site: "Site", port: int, **options: Any) -> bool:
    try:
        site.peer(port, **options)
    except RefusedError:
        return True
    return False


class Peer:
    """One MQTT session, by the bare client library: it does whatever it is told."""

    def __init__(
        self,
        port: int,
        *,
        ca: Path,
        certificate: Path | None = None,
        login: tuple[str, str] | None = None,
        client_id: str = "",
        will: str | None = None,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        session_s: int = 0,
        websocket: bool = False,
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.answers: dict[int, Any] = {}
        self.lost = threading.Event()
        self._answered, self._refused = threading.Event(), ""
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            reconnect_on_failure=False,
            transport="websockets" if websocket else "tcp",
        )
        context = ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._client.tls_set_context(context)
        if login is not None:
            self._client.username_pw_set(*login)
        if will is not None:
            self._client.will_set(will, b"forged", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        self._client.on_publish = lambda _c, _u, mid, code, _p: self.answers.__setitem__(mid, code)
        self._client.on_subscribe = lambda _c, _u, mid, codes, _p: self.answers.__setitem__(mid, codes)
        more: dict[str, Any] = {}
        if version is MQTTProtocolVersion.MQTTv5:
            asked: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it untyped
            asked.SessionExpiryInterval = session_s
            more = {"clean_start": session_s == 0, "properties": asked}
        try:
            self._client.connect("localhost", port, keepalive=20, **more)
        except OSError as error:
            raise RefusedError(str(error)) from error
        self._client.loop_start()
        assert self._answered.wait(10)
        if self._refused or self.lost.is_set():
            self.close()
            raise RefusedError(self._refused or "connection closed")

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._refused = str(code) if code.is_failure else ""
        self._answered.set()

    def _on_disconnect(self, *_: Any) -> None:
        self.lost.set()
        self._answered.set()

    def say(self, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> int:
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def listen(self, *filters: str) -> int:
        _, mid = self._client.subscribe([(each, 1) for each in filters])
        assert mid is not None
        return mid

    def vanish(self) -> None:
        """End without a goodbye: the broker publishes the will."""
        held = self._client.socket()
        assert held is not None
        with socket.socket(fileno=os.dup(held.fileno())) as handle:  # a WebSocket wraps it
            handle.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()


@dataclass
class Site:
    """A folder of ``tinysight broker config``, and its Mosquitto."""

    folder: Path
    eventually: Callable[[Callable[[], object]], None]
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.peers: list[Peer] = []

    @property
    def setup(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "setup.json").read_text())
        return found

    def start(self) -> None:
        """Run what was written, as it was written; only Debian's own user is not there for the test's files."""
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
        config = self.folder / "test.conf"
        written = (self.folder / "broker" / "mosquitto.conf").read_text()
        config.write_text("\n".join([written, *AS_ROOT, ""]))
        log = (self.folder / "log.txt").open("ab")
        self.process = subprocess.Popen([program, "-c", str(config)], stderr=log)
        log.close()
        self.eventually(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()
        try:
            for port in ("port", "people_port", "websocket_port"):
                socket.create_connection(("127.0.0.1", self.setup[port]), timeout=0.2).close()
        except OSError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        for peer in self.peers:
            peer.close()
        self.peers = []
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def reload(self) -> None:
        """As ``systemctl reload mosquitto`` does; waits until it has been done."""
        log = self.folder / "log.txt"
        before = log.read_text().count("Reloading config")
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        self.eventually(lambda: log.read_text().count("Reloading config") > before)
        self.person("dashboard")  # a login is answered after the reload is done

    def device(self, name: str, certificate: Path | None = None, **options: Any) -> Peer:
        certificate = certificate or self.folder / "devices" / name / "device.crt"
        return self.peer(self.setup["port"], certificate=certificate, **options)

    def person(self, name: str, *, websocket: bool = False, **options: Any) -> Peer:
        port = self.setup["websocket_port" if websocket else "people_port"]
        return self.peer(port, login=(name, self.password(name)), websocket=websocket, **options)

    def peer(self, port: int, **options: Any) -> Peer:
        self.peers.append(Peer(port, **{"ca": self.folder / "ca.crt", **options}))
        return self.peers[-1]

    def password(self, name: str) -> str:
        lines = (self.folder / "people" / f"{name}.txt").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("password"))

    def reader(self) -> Peer:
        """Hears everything, and has begun to."""
        peer = self.person("dashboard")
        mid = peer.listen("tinysight/v1/#")
        self.eventually(lambda: mid in peer.answers)
        return peer

    def answer(self, peer: Peer, mid: int) -> Any:
        self.eventually(lambda: mid in peer.answers)
        return peer.answers[mid]

    def all_arrived(self, at: Peer, sender: Peer, topic: str) -> None:
        """Send something permitted and wait for it; what was sent before has then arrived, or never will."""
        token = f"token-{id(sender)}-{len(at.heard)}".encode()
        sender.say(topic, token)
        self.eventually(lambda: (topic, token) in at.heard)
        at.heard.remove((topic, token))


def free_ports() -> dict[str, object]:
    sockets = {name: socket.socket() for name in ("port", "people_port", "websocket_port")}
    for each in sockets.values():
        each.bind(("127.0.0.1", 0))
    ports: dict[str, object] = {name: each.getsockname()[1] for name, each in sockets.items()}
    for each in sockets.values():
        each.close()
    return ports


EVERYBODY: dict[str, Any] = {
    "devices": [MINE, OTHER],
    "readers": ["dashboard"],
    "operators": ["ops"],
    "hosts": ["localhost"],
}


@pytest.fixture
def make_site(tmp_path: Path, eventually: Any) -> Iterator[Callable[..., Site]]:
    """Make sites with brokers that are not yet started; all end with the test."""
    made: list[Site] = []

    def make(name: str = SITE, **more: Any) -> Site:
        folder = tmp_path / f"site-{len(made)}"
        (folder / "data").mkdir(parents=True)
        changes = {"data": str(folder / "data"), **free_ports()}
        configure(folder, Wishes(**{"site": name, **EVERYBODY, **more}, changes=changes))
        made.append(Site(folder, eventually))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def site(make_site: Any) -> Site:
    """A site with two devices, a reader and an operator, whose broker runs."""
    made: Site = make_site()
    made.start()
    return made


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of somebody else's authority, which calls itself as ours does."""
    folder = tmp_path / "foreign"
    configure(folder, Wishes(site=SITE, devices=[MINE], hosts=["localhost"]))
    return folder


def test_a_device_hears_its_own_commands_and_nothing_else(site: Site) -> None:
    hostile, victim, operator = site.device(MINE), site.device(OTHER), site.person("ops")
    victim.say(f"{AT_OTHER}/status", b"retained", retain=True)
    operator.say(f"{AT_OTHER}/desired", b"retained", retain=True)
    everything = (
        "#", "+/#", "tinysight/#", "tinysight/v1/#", "tinysight/v1/+/+/#", f"{AT_OTHER}/#", f"{AT_OTHER}/cmd/#",
        f"{AT_OTHER}/desired", f"{AT_OTHER}/camera/+/event", "$share/g/tinysight/v1/#", f"$share/g/{AT_OTHER}/#",
        "$SYS/#", "$SYS/broker/clients/connected", "$CONTROL/#", "homeassistant/#",
    )  # fmt: skip
    for each in everything:
        site.answer(hostile, hostile.listen(each))
    for tail in ("camera/cam0/event", "health", "ack/1", "alert/disk"):
        victim.say(f"{AT_OTHER}/{tail}")
    operator.say(f"{AT_OTHER}/cmd/restart")
    hostile.say(f"{AT_MINE}/health")  # its own words do not come back either
    site.all_arrived(hostile, operator, f"{AT_MINE}/cmd/identify")
    site.all_arrived(hostile, operator, f"{AT_MINE}/desired")
    assert {topic for topic, _ in hostile.heard} <= {f"{AT_MINE}/cmd/identify", f"{AT_MINE}/desired"}


def test_a_device_says_what_the_contract_lets_it_say_under_its_own_name_and_nothing_else(site: Site) -> None:
    reader, hostile, victim = site.reader(), site.device(MINE), site.device(OTHER)
    for tail in ("status", "info", "health", "reported", "camera/cam0/event", "camera/cam0/counts", "alert/a", "ack/1"):
        assert not site.answer(hostile, hostile.say(f"{AT_MINE}/{tail}")).is_failure, tail
    site.eventually(lambda: len(reader.heard) == 8)
    reader.heard.clear()
    forbidden = [
        f"{AT_OTHER}/{tail}" for tail in ("status", "info", "camera/cam0/event", "ack/1", "desired", "cmd/restart")
    ]
    forbidden += [f"{AT_MINE}/{tail}" for tail in ("desired", "cmd/restart", "camera", "camera/a/b/c", "other", "")]
    forbidden += [
        "tinysight/v1/plant-2/belt-7/status",
        "tinysight/v1/status",
        "tinysight",
        AT_MINE,
        "$SYS/broker/uptime",
    ]
    forbidden += ["homeassistant/device/x/config", "$CONTROL/dynamic-security/v1", "/" + AT_MINE + "/status", "x"]
    forbidden += [f"$share/g/{AT_OTHER}/status", f"{AT_MINE}/../{OTHER}/status"]
    for topic in forbidden:
        assert site.answer(hostile, hostile.say(topic, retain=True)).is_failure, topic
    site.all_arrived(reader, victim, f"{AT_OTHER}/health")
    assert reader.heard == []


def test_a_device_with_mqtt_3_is_held_to_the_same_rules(site: Site) -> None:
    reader, hostile = site.reader(), site.device(MINE, version=MQTTProtocolVersion.MQTTv311)
    for topic in (f"{AT_OTHER}/status", f"{AT_MINE}/cmd/restart", f"{AT_OTHER}/desired"):
        hostile.say(topic, retain=True)
    site.all_arrived(reader, hostile, f"{AT_MINE}/health")
    assert reader.heard == []


def test_a_device_cannot_clear_what_another_has_retained(site: Site) -> None:
    victim, hostile = site.device(OTHER), site.device(MINE)
    site.answer(victim, victim.say(f"{AT_OTHER}/status", b"online", retain=True))
    assert site.answer(hostile, hostile.say(f"{AT_OTHER}/status", b"", retain=True)).is_failure
    reader = site.reader()
    site.eventually(lambda: (f"{AT_OTHER}/status", b"online") in reader.heard)


@pytest.mark.parametrize("wanted", ["the other's user name", f"tinysight_{SITE}_{OTHER}", OTHER])
def test_a_device_cannot_take_anothers_client_id(site: Site, wanted: str) -> None:
    wanted = site.setup["devices"][OTHER] if wanted.startswith("the") else wanted
    victim, operator = site.device(OTHER, client_id=f"tinysight_{SITE}_{OTHER}"), site.person("ops")
    site.answer(victim, victim.listen(f"{AT_OTHER}/cmd/#"))
    hostile = site.device(MINE, client_id=wanted)
    site.answer(hostile, hostile.listen(f"{AT_OTHER}/cmd/#"))
    site.all_arrived(victim, operator, f"{AT_OTHER}/cmd/identify")
    assert not victim.lost.is_set()
    assert hostile.heard == []


def test_a_device_cannot_take_over_what_waits_for_another(site: Site) -> None:
    identity = site.setup["devices"][OTHER]
    victim, operator = site.device(OTHER, session_s=600), site.person("ops")
    site.answer(victim, victim.listen(f"{AT_OTHER}/cmd/#"))
    victim.close()
    site.answer(operator, operator.say(f"{AT_OTHER}/cmd/identify", b"secret"))
    hostile = site.device(MINE, client_id=identity, session_s=600)
    site.answer(hostile, hostile.listen(f"{AT_MINE}/cmd/#"))
    site.all_arrived(hostile, operator, f"{AT_MINE}/cmd/identify")
    assert hostile.heard == []
    again = site.device(OTHER, session_s=600)
    site.eventually(lambda: again.heard == [(f"{AT_OTHER}/cmd/identify", b"secret")])


def test_a_person_cannot_guess_the_client_id_of_a_device(site: Site, make_site: Any) -> None:
    """Mosquitto lets anybody who may log in end the session of a client id that they know."""
    victim, operator = site.device(OTHER, client_id=f"tinysight_{SITE}_{OTHER}"), site.person("ops")
    site.answer(victim, victim.listen(f"{AT_OTHER}/cmd/#"))
    for guess in (f"tinysight_{SITE}_{OTHER}", OTHER, f"{SITE}_{OTHER}", "auto"):
        site.person("dashboard", client_id=guess)
    site.all_arrived(victim, operator, f"{AT_OTHER}/cmd/identify")
    assert not victim.lost.is_set()
    assert site.setup["devices"][OTHER] != make_site().setup["devices"][OTHER]


@pytest.mark.parametrize("topic", [f"{AT_OTHER}/status", f"{AT_MINE}/desired", f"{AT_OTHER}/cmd/restart"])
def test_a_device_cannot_forge_a_will(site: Site, topic: str) -> None:
    reader, victim = site.reader(), site.device(OTHER)
    hostile = site.device(MINE, will=topic)
    hostile.vanish()
    site.eventually(lambda: "belt-7" in (site.folder / "log.txt").read_text().splitlines()[-1])  # it has been noticed
    site.all_arrived(reader, victim, f"{AT_OTHER}/health")
    assert reader.heard == []


def test_a_devices_own_will_is_published(site: Site) -> None:
    reader = site.reader()
    site.device(MINE, will=f"{AT_MINE}/status").vanish()
    site.eventually(lambda: reader.heard == [(f"{AT_MINE}/status", b"forged")])


def test_nobody_comes_in_without_a_certificate_of_this_site(site: Site, foreign: Path, tmp_path: Path) -> None:
    authority = pki.Authority.load(site.folder)
    identity = site.setup["devices"][MINE]
    authority.sign_client(tmp_path / "expired", site=SITE, name=MINE, identity=identity, days=-1)
    port, theirs = site.setup["port"], foreign / "devices" / MINE / "device.crt"
    pki.Authority.load(foreign).sign_client(tmp_path / "namesake", site=SITE, name=MINE, identity=identity)
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        "a password": {"login": ("ops", site.password("ops"))},
        "another authority's": {"certificate": theirs},
        "another authority's, with the right name": {"certificate": tmp_path / "namesake.crt"},
        "expired": {"certificate": tmp_path / "expired.crt"},
        "the server's": {"certificate": site.folder / "broker" / "server.crt"},
    }
    for why, options in cases.items():
        assert is_refused(site, port, **options), why
    site.device(MINE)


def test_a_device_does_not_speak_to_a_broker_of_another_authority_or_name(site: Site, foreign: Path) -> None:
    for ca, name, why in (
        (foreign / "ca.crt", "localhost", "certificate verify failed"),
        (site.folder / "ca.crt", "broker.example", "Hostname mismatch"),
    ):
        context = ssl.create_default_context(cafile=str(ca))
        with (
            socket.create_connection(("127.0.0.1", site.setup["port"])) as bare,
            pytest.raises(ssl.SSLCertVerificationError, match=why),
        ):
            context.wrap_socket(bare, server_hostname=name)


def test_a_device_shows_its_certificate_to_nobody_on_the_wire(site: Site) -> None:
    """TLS 1.2 sends it in the clear, and in it the client id that nobody is to know."""
    context = ssl.create_default_context(cafile=str(site.folder / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", site.setup["port"])) as bare, pytest.raises(ssl.SSLError):
        context.wrap_socket(bare, server_hostname="localhost")


def test_a_certificate_of_a_device_opens_no_door_for_people(site: Site) -> None:
    with pytest.raises(RefusedError, match="ot authorized"):
        site.peer(site.setup["people_port"], certificate=site.folder / "devices" / MINE / "device.crt")


@pytest.mark.parametrize("websocket", [False, True], ids=["tcp", "websocket"])
def test_a_person_without_the_right_password_stays_out(site: Site, websocket: bool) -> None:
    port = site.setup["websocket_port" if websocket else "people_port"]
    identity = site.setup["devices"][MINE]
    for login in (
        None,
        ("dashboard", "wrong"),
        ("dashboard", ""),
        ("nobody", "x"),
        ("", ""),
        (identity, ""),
        (MINE, ""),
    ):
        assert is_refused(site, port, login=login, websocket=websocket), login


@pytest.mark.parametrize("websocket", [False, True], ids=["tcp", "websocket"])
def test_a_reader_hears_everything_and_says_nothing(site: Site, websocket: bool) -> None:
    reader, other = site.person("dashboard", websocket=websocket, will=f"{AT_MINE}/status"), site.reader()
    site.answer(reader, reader.listen("tinysight/v1/#"))
    device = site.device(MINE)
    for topic in (
        f"{AT_MINE}/status",
        f"{AT_MINE}/desired",
        f"{AT_MINE}/cmd/restart",
        "tinysight/v1/plant-1/dashboard/status",
    ):
        assert site.answer(reader, reader.say(topic, retain=True)).is_failure, topic
    site.all_arrived(reader, device, f"{AT_MINE}/camera/cam0/event")
    reader.vanish()
    site.all_arrived(other, device, f"{AT_MINE}/camera/cam0/event")
    assert [topic for topic, _ in other.heard] == [f"{AT_MINE}/camera/cam0/event"], "the one before, and no will"


def test_an_operator_commands_this_site_and_does_not_speak_for_devices(site: Site) -> None:
    operator = site.person("ops")
    for topic in (f"{AT_MINE}/desired", f"{AT_OTHER}/cmd/restart"):
        assert not site.answer(operator, operator.say(topic)).is_failure
    for topic in (f"{AT_MINE}/status", f"{AT_MINE}/camera/cam0/event", "tinysight/v1/plant-2/belt-7/cmd/restart"):
        assert site.answer(operator, operator.say(topic)).is_failure


def test_a_packet_that_is_too_large_ends_the_session_and_reaches_nobody(site: Site) -> None:
    reader, hostile, victim = site.reader(), site.device(MINE, version=MQTTProtocolVersion.MQTTv311), site.device(OTHER)
    hostile.say(f"{AT_MINE}/camera/cam0/event", bytes(1 << 20))
    site.eventually(hostile.lost.is_set)
    site.all_arrived(reader, victim, f"{AT_OTHER}/health")
    assert reader.heard == []


def test_who_is_revoked_is_powerless_at_once_and_does_not_come_back_and_others_stay(site: Site, tinysight: Any) -> None:
    shutil.copytree(site.folder / "devices" / MINE, site.folder / "stolen")
    old_login = ("dashboard", site.password("dashboard"))
    reader, revoked, victim, operator = site.reader(), site.device(MINE), site.device(OTHER), site.person("ops")
    site.answer(revoked, revoked.listen(f"{AT_MINE}/cmd/#"))
    folder = ("--out", site.folder)
    done = tinysight("broker", "config", *folder, "--revoke", MINE, "--revoke", "dashboard", "--json")
    assert json.loads(done.stdout)["revoked"] == [MINE, "dashboard"], done.stderr
    done = tinysight(
        "broker", "config", *folder, "--device", MINE, "--device", "new-1", "--reader", "dashboard", "--json"
    )
    assert json.loads(done.stdout)["made"] == [MINE, "new-1", "dashboard"], done.stderr
    site.reload()
    site.eventually(reader.lost.is_set)
    assert site.answer(revoked, revoked.say(f"{AT_MINE}/status")).is_failure
    with pytest.raises(RefusedError):
        site.device(MINE, site.folder / "stolen" / "device.crt")
    with pytest.raises(RefusedError):
        site.peer(site.setup["people_port"], login=old_login)
    reader, again = site.reader(), site.device(MINE)
    site.answer(again, again.listen(f"{AT_MINE}/cmd/#"))
    site.all_arrived(again, operator, f"{AT_MINE}/cmd/identify")
    assert revoked.heard == []
    site.all_arrived(reader, site.device("new-1"), f"tinysight/v1/{SITE}/new-1/health")
    assert not victim.lost.is_set()
    site.all_arrived(reader, victim, f"{AT_OTHER}/health")


def revoked_in(folder: Path) -> set[int]:
    crl = x509.load_pem_x509_crl((folder / "broker" / "revoked.crl").read_bytes())
    return {each.serial_number for each in crl}


@pytest.mark.parametrize("gone", ["nothing", "devices", "serials"])
def test_all_certificates_of_who_is_revoked_are_revoked_also_renewed_ones_and_without_the_files(
    tmp_path: Path, gone: str
) -> None:
    configure(tmp_path, Wishes(site=SITE, hosts=["localhost"], devices=[MINE, OTHER], bridges=["plant-2"]))
    stem = tmp_path / "devices" / MINE / "device"
    identity = json.loads((tmp_path / "setup.json").read_text())["devices"][MINE]
    serials = {pki.read_certificate(stem.with_suffix(".crt")).serial_number}
    if gone == "serials":  # as a version wrote it that did not keep them
        setup = json.loads((tmp_path / "setup.json").read_text())
        (tmp_path / "setup.json").write_text(json.dumps({**setup, "issued": {}}))
        configure(tmp_path, Wishes())
    pki.Authority.load(tmp_path).sign_client(stem, site=SITE, name=MINE, identity=identity, days=60)
    serials.add(pki.read_certificate(stem.with_suffix(".crt")).serial_number)
    assert configure(tmp_path, Wishes())["renewed"] == [MINE]
    serials.add(pki.read_certificate(stem.with_suffix(".crt")).serial_number)
    if gone == "devices":
        (tmp_path / "devices" / MINE).rename(tmp_path / "handed-over")
    configure(tmp_path, Wishes(revoke=[MINE]))
    assert (len(serials), revoked_in(tmp_path)) == (3, serials)
    configure(tmp_path, Wishes(devices=[MINE]))
    bridge = pki.read_certificate(tmp_path / "bridges" / "plant-2" / "bridge.crt").serial_number
    configure(tmp_path, Wishes(revoke=["plant-2"]))
    assert revoked_in(tmp_path) == {*serials, bridge}


def test_who_is_let_in_again_gets_another_key_also_after_a_run_that_was_killed(tmp_path: Path) -> None:
    configure(tmp_path, Wishes(site=SITE, hosts=["localhost"], devices=[MINE]))
    folder, kept = tmp_path / "devices" / MINE, tmp_path / "kept"
    shutil.copytree(folder, kept)
    configure(tmp_path, Wishes(revoke=[MINE]))
    shutil.copytree(kept, folder)  # the run ended before it took the files away
    assert configure(tmp_path, Wishes(devices=[MINE]))["made"] == [MINE]
    assert (folder / "device.key").read_bytes() != (kept / "device.key").read_bytes()
    old, new = (pki.read_certificate(each / "device.crt") for each in (kept, folder))
    assert old.public_key() != new.public_key()
    assert revoked_in(tmp_path) == {old.serial_number}


@pytest.mark.parametrize("again", [{"devices": [MINE]}, {"bridges": [MINE]}, {"readers": [MINE]}])
def test_nobody_is_revoked_and_let_in_by_one_call(tmp_path: Path, again: dict[str, Any]) -> None:
    configure(tmp_path, Wishes(site=SITE, hosts=["localhost"], devices=[MINE]))
    before = files_of(tmp_path)
    with pytest.raises(ConfigError, match="at once") as caught:
        configure(tmp_path, Wishes(revoke=[MINE], **again))
    assert "Run it twice" in str(caught.value.mend)
    assert files_of(tmp_path) == before


def test_what_is_retained_and_what_waits_outlives_a_restart_of_the_broker(site: Site) -> None:
    device = site.device(MINE, session_s=600)
    site.answer(device, device.listen(f"{AT_MINE}/cmd/#"))
    site.answer(device, device.say(f"{AT_MINE}/status", b"online", retain=True))
    device.close()
    operator = site.person("ops")
    site.answer(operator, operator.say(f"{AT_MINE}/cmd/identify", b"waits"))
    site.stop()
    site.start()
    reader, device = site.reader(), site.device(MINE, session_s=600)
    site.eventually(lambda: (f"{AT_MINE}/status", b"online") in reader.heard)
    site.eventually(lambda: device.heard == [(f"{AT_MINE}/cmd/identify", b"waits")])


@pytest.mark.timeout(60)  # it waits for lines
def test_the_agent_and_watch_work_with_what_was_written(site: Site, belt_bundle: Path) -> None:
    folder = site.folder / "devices" / MINE
    rest = f'[model]\nbundle = "{belt_bundle}"\n[cameras.cam0]\nsource = "synthetic:belt"\n'
    (folder / "agent.toml").write_text('state = "state"\n' + (folder / "broker.toml").read_text() + rest)
    lines = (site.folder / "people" / "dashboard.txt").read_text().splitlines()
    browser = next(line.split()[1] for line in lines if line.startswith("browser"))
    with (
        started(site, "watch", "--json", "--broker", browser) as watch,
        started(site, "run", "--config", folder / "agent.toml", "--quiet") as run,
    ):
        assert watch.stdout is not None
        kinds: set[str] = set()
        while not {"status", "info", "counts", "event"} <= kinds:
            line = json.loads(watch.stdout.readline())
            assert "broken" not in line
            kinds.add(line["topic"].rsplit("/", 1)[1])
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0
        while True:
            line = json.loads(watch.stdout.readline())
            if line["topic"].endswith(f"{MINE}/status") and line["message"]["state"] == "offline":
                break
        watch.send_signal(signal.SIGINT)
        last = json.loads(watch.stdout.read().splitlines()[-1])
        assert (last["devices"], last["missing"], last["broken"]) == (1, 0, 0)
        assert last["events"] > 0


@contextlib.contextmanager
def started(site: Site, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tinysight_deploy", *map(str, arguments)]
    environment = {**os.environ, "XDG_STATE_HOME": str(site.folder / "state")}
    process = subprocess.Popen(command, cwd=site.folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_sites_broker_passes_its_messages_on_and_brings_commands_back(make_site: Any, eventually: Any) -> None:
    central, site = make_site("central", bridges=[SITE], devices=[]), make_site()
    files = central.folder / "bridges" / SITE
    central.start()
    text = (files / "bridge.conf").read_text().replace("/etc/mosquitto/tinysight/conf.d", str(files))
    (site.folder / "broker" / "conf.d" / "bridge.conf").write_text(text)
    site.start()
    device, above = site.device(MINE), central.reader()
    site.answer(device, device.listen(f"{AT_MINE}/cmd/#", f"{AT_MINE}/desired"))
    device.say(f"{AT_MINE}/status", b"online", retain=True)
    device.say(f"{AT_MINE}/camera/cam0/event", b"1")
    eventually(lambda: {(f"{AT_MINE}/status", b"online"), (f"{AT_MINE}/camera/cam0/event", b"1")} <= set(above.heard))
    late = central.reader()
    eventually(lambda: late.heard == [(f"{AT_MINE}/status", b"online")])  # retained there as well

    central.stop(signal.SIGTERM)
    below = site.reader()
    for number in range(20):
        device.say(f"{AT_MINE}/camera/cam0/event", b"while away %d" % number)
    eventually(lambda: len(below.heard) >= 20)
    central.start()
    above = central.reader()
    operator = central.person("ops")
    wanted = [(f"{AT_MINE}/camera/cam0/event", b"while away %d" % number) for number in range(20)]
    eventually(lambda: [each for each in above.heard if b"away" in each[1]] == wanted)
    operator.say(f"{AT_MINE}/desired", b"from above", retain=True)
    operator.say(f"{AT_MINE}/cmd/identify", b"from above")
    eventually(lambda: {topic for topic, _ in device.heard} == {f"{AT_MINE}/desired", f"{AT_MINE}/cmd/identify"})


def test_a_sites_bridge_speaks_for_its_own_site_only(make_site: Any) -> None:
    central = make_site("central", bridges=[SITE, "plant-2"])
    central.start()
    reader = central.reader()
    bridge = central.device(SITE, central.folder / "bridges" / SITE / "bridge.crt")
    for topic in ("tinysight/v1/plant-2/a/status", "tinysight/v1/central/belt-7/status", f"{AT_MINE}/desired"):
        assert central.answer(bridge, bridge.say(topic, retain=True)).is_failure, topic
    central.all_arrived(reader, bridge, f"{AT_MINE}/health")
    assert reader.heard == []


def test_home_assistant_is_told_only_by_who_may_and_only_if_wished(make_site: Any) -> None:
    site = make_site()
    configure(site.folder, Wishes(changes={"home_assistant": True}))
    site.start()
    device, reader = site.device(MINE), site.person("dashboard")
    site.answer(reader, reader.listen("homeassistant/#"))
    own, others = (f"homeassistant/device/tinysight_{SITE}/{name}/config" for name in (MINE, OTHER))
    assert site.answer(device, device.say(others, retain=True)).is_failure
    assert site.answer(device, device.say("homeassistant/status")).is_failure
    site.all_arrived(reader, device, own)
    assert reader.heard == []


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_wishes_again_change_no_byte_and_need_no_authoritys_key(tmp_path: Path) -> None:
    wishes = Wishes(site=SITE, hosts=["localhost"], devices=[MINE], readers=["dashboard"], bridges=["plant-2"])
    configure(tmp_path, wishes)
    before = files_of(tmp_path)
    (tmp_path / "ca.key").rename(tmp_path / "offline")
    assert configure(tmp_path, wishes) == {"made": [], "renewed": [], "revoked": []}
    (tmp_path / "offline").rename(tmp_path / "ca.key")
    assert files_of(tmp_path) == before


def test_what_is_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    configure(tmp_path / "out", Wishes(site=SITE, devices=[MINE], operators=["ops"], bridges=["plant-2"]))
    private = {
        "ca.key", "setup.json", "broker/server.key", "broker/passwords", f"devices/{MINE}/device.key", "people/ops.txt",
        "bridges/plant-2/bridge.key",
    }  # fmt: skip
    assert private == {
        name for name in files_of(tmp_path / "out") if stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) == 0o600
    }
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    word = (tmp_path / "out" / "people" / "ops.txt").read_text().splitlines()[2].split()[1]
    assert [name for name, data in files_of(tmp_path / "out").items() if word.encode() in data] == ["people/ops.txt"]


def test_a_certificate_that_ends_soon_is_renewed_for_the_same_key_and_name(tmp_path: Path) -> None:
    configure(tmp_path, Wishes(site=SITE, hosts=["localhost"], devices=[MINE]))
    stem = tmp_path / "devices" / MINE / "device"
    key, old = stem.with_suffix(".key").read_bytes(), pki.read_certificate(stem.with_suffix(".crt"))
    identity = pki.identity_of(old)
    pki.Authority.load(tmp_path).sign_client(stem, site=SITE, name=MINE, identity=identity, days=89)
    assert configure(tmp_path, Wishes())["renewed"] == [MINE]
    new = pki.read_certificate(stem.with_suffix(".crt"))
    assert (stem.with_suffix(".key").read_bytes(), pki.identity_of(new)) == (key, identity)
    assert not pki.ends_soon(new)


def test_another_host_name_renews_the_brokers_certificate_and_is_told_to_the_devices(tmp_path: Path) -> None:
    configure(tmp_path, Wishes(site=SITE, hosts=["old.example"], devices=[MINE]))
    assert configure(tmp_path, Wishes(hosts=["new.example", "192.0.2.7", "2001:db8::7"]))["renewed"] == ["server"]
    command = ["openssl", "x509", "-in", str(tmp_path / "broker" / "server.crt"), "-noout", "-ext", "subjectAltName"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in ("new.example", "192.0.2.7", "2001:DB8", "localhost", "127.0.0.1"))
    assert "mqtts://new.example:8883" in (tmp_path / "devices" / MINE / "broker.toml").read_text()


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(devices=["a"]), "Give --site"),
        (Wishes(site="Plant 1"), "not a valid id"),
        (Wishes(site="a", devices=["b\ntopic readwrite #"]), "not a valid id"),
        (Wishes(site="a", bridges=["../b"]), "not a valid id"),
        (Wishes(site="a", bridges=["a"]), "of this site itself"),
        (Wishes(site="a", readers=["x_y"]), "not a valid id"),
        (Wishes(site="a", devices=["b"], readers=["b"]), "Two would be called 'b'"),
        (Wishes(site="a", readers=["b"], operators=["b"]), "given twice"),
        (Wishes(site="a", hosts=["a b"]), "no host name"),
        (Wishes(site="a", hosts=["h\nallow_anonymous true"]), "no host name"),
        (Wishes(site="a", changes={"port": 1, "people_port": 1}), "cannot be"),
        (Wishes(site="a", changes={"data": "here"}), "no absolute path"),
        (Wishes(site="a", changes={"data": "/x\nallow_anonymous true"}), "no absolute path"),
        (Wishes(site="a", revoke=["b"]), "Nobody is called 'b'"),
    ],
)
def test_a_wish_that_cannot_be_writes_nothing(tmp_path: Path, wishes: Wishes, said: str) -> None:
    with pytest.raises((ConfigError, ContractError), match=re.escape(said)):
        configure(tmp_path / "out", wishes)
    assert not (tmp_path / "out").exists()


def test_what_needs_the_authoritys_key_says_so_and_another_site_is_refused(tmp_path: Path, tinysight: Any) -> None:
    configure(tmp_path, Wishes(site=SITE))
    (tmp_path / "ca.key").unlink()
    before = files_of(tmp_path)
    done = tinysight("broker", "config", "--out", tmp_path, "--device", MINE)
    assert (done.returncode, "ca.key is not here" in done.stderr) == (2, True)
    done = tinysight("broker", "config", "--out", tmp_path, "--site", "plant-2")
    assert (done.returncode, "is of the site 'plant-1'" in done.stderr) == (2, True)
    assert files_of(tmp_path) == before


def test_the_quick_start_shows_no_password_to_other_users_and_gives_the_agent_its_key() -> None:
    shown = (Path(__file__).parents[2] / "docs" / "broker.md").read_text().split("## Who may do what")[0]
    lines = [line for line in shown.splitlines() if line.startswith("$ ")]
    assert not [line for line in lines if re.search(r"--broker\b.*people/", line)]
    assert [line for line in lines if "people/" in line and "TINYSIGHT_BROKER=" in line]
    to_device = [line for line in lines if "/etc/tinysight/" in line]
    assert to_device
    assert all(":tinysight" in line for line in to_device)
