"""Brokers that are to be trusted and brokers that are not, and what is said of those: real TLS, real Mosquitto."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.mqtt import Address, Connection

Serve = Callable[..., str]


@pytest.fixture
def serve(make_mosquitto: Any, pki: Path, eventually: Any) -> Serve:
    """Start a broker with a certificate; where it is, without scheme."""

    def start(certificate: str = "broker", *, asks: bool = False, websockets: bool = False) -> str:
        port = free_port()
        broker = make_mosquitto(  # a listener for WebSockets with TLS cannot be bound to one address
            f"allow_anonymous true\nlistener {port}\ncertfile {pki / certificate}.crt\n"
            f"keyfile {pki / certificate}.key\ncafile {pki / 'ca.crt'}\nrequire_certificate {str(asks).lower()}\n"
            + ("protocol websockets\n" if websockets else "")
        )
        broker.start()
        eventually(lambda: listens(port))
        return f"127.0.0.1:{port}"

    return start


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def listens(port: int) -> bool:
    """Whether TLS is answered there: a listener for WebSockets takes connections before it is ready and resets them."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, anyone.wrap_socket(plain):
            return True
    except OSError:
        return False


def own(pki: Path, name: str, key: str | None = None) -> str:
    return f"&cert={pki / name}.crt&key={pki / (key or name)}.key"


def open_(url: str) -> Connection:
    connection = Connection(Address.parse(url), client_id="tls", on_message=lambda *_: None)
    connection.open(timeout_s=5)
    return connection


@pytest.mark.parametrize("version", ["5", "3"])
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize("asks", [pytest.param(False, id="anyone"), pytest.param(True, id="certificate")])
def test_a_message_crosses_over_each_transport_and_version(
    serve: Serve, pki: Path, eventually: Any, scheme: str, version: str, asks: bool
) -> None:
    where = serve(asks=asks, websockets=scheme == "wss")
    heard: list[bytes] = []
    url = f"{scheme}://{where}?version={version}&ca={pki / 'ca.crt'}{own(pki, 'device') if asks else ''}"
    connection = Connection(Address.parse(url), client_id="tls", on_message=lambda _t, said, _r: heard.append(said))
    connection.open(timeout_s=5)
    connection.subscribe("x")
    big = bytes(20_000)  # two TLS records
    connection.publish("x", big, qos=1, retain=False)
    eventually(lambda: heard == [big])
    connection.close()


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize(
    ("certificate", "ca", "why", "mend"),
    [
        pytest.param("broker-expired", "ca", "certificate has expired", "set this machine's clock", id="expired"),
        pytest.param("broker-to-come", "ca", "not yet valid", "set this machine's clock", id="not yet valid"),
        pytest.param("broker-elsewhere", "ca", "not valid for '127.0.0.1'", "Write the host name", id="other host"),
        pytest.param(
            "broker", "other-ca", "certificate in certificate chain", "ca_file in agent.toml", id="another CA"
        ),
        pytest.param("broker", None, "certificate in certificate chain", "ca_file in agent.toml", id="no CA of ours"),
    ],
)
def test_a_broker_that_is_not_to_be_trusted_is_refused_with_the_mend(
    serve: Serve, pki: Path, scheme: str, certificate: str, ca: str | None, why: str, mend: str
) -> None:
    where = serve(certificate, websockets=scheme == "wss")
    with pytest.raises(BrokerError, match="is not to be trusted") as refused:
        open_(f"{scheme}://{where}" + (f"?ca={pki / ca}.crt" if ca else ""))
    assert why in str(refused.value)
    assert mend in refused.value.mend


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize(
    ("shows", "why", "mend"),
    [
        pytest.param(None, "wants a certificate of us", "cert_file and key_file", id="none"),
        pytest.param("device-expired", "certificate expired", "has not expired", id="expired"),
        pytest.param("device-stranger", "unknown ca", "the broker's CA signed", id="another CA"),
    ],
)
@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_broker_that_does_not_trust_us_is_told_with_the_mend(
    serve: Serve,
    pki: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    tls: ssl.TLSVersion,
    shows: str | None,
    why: str,
    mend: str,
) -> None:
    """TLS 1.3 tells of it after the handshake, when we have begun to speak."""
    default = ssl.create_default_context

    def only(**arguments: Any) -> ssl.SSLContext:
        context = default(**arguments)
        context.minimum_version = context.maximum_version = tls
        return context

    monkeypatch.setattr(ssl, "create_default_context", only)
    where = serve(asks=True, websockets=scheme == "wss")
    with pytest.raises(BrokerError, match=why) as refused:
        open_(f"{scheme}://{where}?ca={pki / 'ca.crt'}{own(pki, shows) if shows else ''}")
    assert mend in refused.value.mend
    assert "Check the port" not in refused.value.mend


def test_tls_to_a_port_without_it_and_the_reverse_are_told_apart(mosquitto: Any, serve: Serve, pki: Path) -> None:
    with pytest.raises(BrokerError, match=r"does not speak TLS with us.*go without TLS"):
        open_(f"mqtts://127.0.0.1:{mosquitto.port}?ca={pki / 'ca.crt'}")
    with pytest.raises(BrokerError, match="does not speak MQTT 5"):
        open_(f"mqtt://{serve()}")


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        pytest.param("device", "broker", "the key is not the certificate's", id="key of another"),
        pytest.param("device", "device-locked", "wants a passphrase", id="locked key"),
        pytest.param("device", "nowhere", "No such file", id="no key"),
        pytest.param("nowhere", "device", "No such file", id="no certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told_and_asks_no_terminal(
    serve: Serve, pki: Path, cert: str, key: str, why: str
) -> None:
    with pytest.raises(BrokerError, match=why) as refused:
        open_(f"mqtts://{serve()}?ca={pki / 'ca.crt'}{own(pki, cert, key)}")
    assert f"{cert}.crt" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere.crt", "No such file"), ("device.key", "no PEM file"), ("empty.crt", "no PEM file")]
)
def test_a_ca_that_cannot_be_used_is_told(pki: Path, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty.crt").touch()
    ca = tmp_path / name if name == "empty.crt" else pki / name
    with pytest.raises(BrokerError, match=why):
        open_(f"mqtts://127.0.0.1:1?ca={ca}")


@pytest.mark.parametrize("way", ["insecure=1", "tls_insecure=true", "verify=0", "verify_hostname=false"])
def test_there_is_no_way_to_go_without_verifying(way: str) -> None:
    with pytest.raises(ConfigError, match="never goes without verifying") as refused:
        Address.parse(f"mqtts://h?{way}")
    assert "?ca=FILE" in refused.value.mend


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mqtt://h?ca=x", r"goes without TLS. Write mqtts://"),
        ("ws://h?cert=x&key=y", r"goes without TLS. Write wss://"),
        ("mqtts://h?cert=x", "belong together"),
        ("mqtts://h?key=x", "belong together"),
    ],
)
def test_files_that_go_with_nothing_are_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Address.parse(url)


def test_files_are_read_from_an_address() -> None:
    address = Address.parse("wss://h?ca=a&cert=b&key=c")
    assert (address.ca, address.cert, address.key) == (Path("a"), Path("b"), Path("c"))
    assert not address.exposes_password
