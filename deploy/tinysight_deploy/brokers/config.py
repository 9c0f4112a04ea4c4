"""What a site's Mosquitto is told: who may log in, who may say and hear what, how much it will bear.

In: a `Setup`.  Out: the text of Mosquitto's files. Pure; `broker_folder` puts it on disk. The rules are made from the
contract's topics, so a topic that is added there is allowed here, in its own direction.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, Literal, Self

import msgspec

from tinysight_contract import topics as t
from tinysight_contract.errors import ConfigError

__all__ = [
    "FROM_DEVICES",
    "LOCAL",
    "TO_DEVICES",
    "Person",
    "Role",
    "Setup",
    "acl",
    "bridge_conf",
    "broker_toml",
    "hash_password",
    "mosquitto_conf",
    "passwords",
    "people_text",
]

Role = Literal["reader", "operator"]

TO_DEVICES: Final = (t.DesiredTopic, t.CommandTopic)
FROM_DEVICES: Final = tuple(kind for kind in t.TOPICS if kind not in TO_DEVICES)
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?|::1?")
LOCAL: Final = ("localhost", "127.0.0.1")
HASH_ROUNDS: Final = 1000
"""Passwords are 160 random bits, which no number of rounds makes harder to guess; each round is paid by the broker's
only thread at every login, also at a false one."""


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody, or some program, with a password.

    Attributes:
        role: a reader hears everything and says nothing; an operator also sends commands and desired states.
        password: its hash, as Mosquitto writes it.
    """

    role: Role
    password: str


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has been asked for so far. Kept as ``setup.json``; the broker's files follow from it.

    Attributes:
        site: whose devices these are.
        hosts: names and addresses by which the broker is reached; the first is told to devices and people.
        port: TLS with a certificate, for devices.
        people_port: TLS with a password.
        websocket_port: the same, for browsers.
        installed_at: the folder in which the broker finds its files.
        data: the folder in which it keeps sessions and retained messages.
        home_assistant: whether devices may announce themselves to Home Assistant.
        emqx: whether the same is written for EMQX, too.
        devices: each device's user name.
        bridges: the user name of each other site whose broker passes its messages on to this one.
        people: by name.
        issued: by user name, the serial numbers of all its certificates, in hexadecimal.
        revoked: those of certificates that are no longer believed.
    """

    site: str
    hosts: tuple[str, ...]
    port: int = 8883
    people_port: int = 8884
    websocket_port: int = 8084
    installed_at: str
    data: str = "/var/lib/mosquitto"
    home_assistant: bool = False
    emqx: bool = False
    devices: dict[str, str] = {}
    bridges: dict[str, str] = {}
    people: dict[str, Person] = {}
    issued: dict[str, frozenset[str]] = {}
    revoked: frozenset[str] = frozenset()

    def checked(self) -> Self:
        """The same, if it can be.

        Raises:
            ConfigError: a host, a port or a folder cannot be used, or two would share a name.
            ContractError: a name is no id.
        """
        for what, names in (("site", [self.site, *self.bridges]), ("device", self.devices), ("name", self.people)):
            for name in names:
                t.check_id(name, what=what)
        if twice := _shared(self.devices, self.bridges, self.people):
            raise ConfigError(
                f"Two would be called {min(twice)!r}.", mend="Give the person or the device another name."
            )
        if self.site in self.bridges:
            raise ConfigError(
                f"The broker of {self.site!r} is that of this site itself.", mend="Give --bridge another site."
            )
        for host in self.hosts:
            if HOST.fullmatch(host) is None:
                raise ConfigError(f"{host!r} is no host name or address.", mend="Give --host broker.example.")
        ports = (self.port, self.people_port, self.websocket_port)
        if len(set(ports)) < len(ports) or not all(0 < port < 65536 for port in ports):
            raise ConfigError(
                f"The ports {', '.join(map(str, ports))} cannot be.", mend="Give three different ones from 1 to 65535."
            )
        for folder in (self.installed_at, self.data):
            if not PurePosixPath(folder).is_absolute() or not folder.isprintable():
                raise ConfigError(f"{folder!r} is no absolute path.", mend="Begin it with a slash.")
        return self


def _shared(*groups: Mapping[str, object]) -> set[str]:
    """Names that stand in more than one group."""
    return {name for number, group in enumerate(groups) for name in group for other in groups[:number] if name in other}


def mosquitto_conf(setup: Setup) -> str:
    """``mosquitto.conf``: three ways in, and limits. Read whole at the start; rules and lists also on SIGHUP."""
    at = PurePosixPath(setup.installed_at)
    server = f"certfile {at / 'server.crt'}\nkeyfile {at / 'server.key'}"
    return f"""\
# Mosquitto 2 for the site {setup.site}. Written by `tinysight broker config`, which writes it anew each time.

# One list of rules for all listeners: Mosquitto then knows them also for clients that are away.
per_listener_settings false
allow_anonymous false
password_file {at / "passwords"}
acl_file {at / "acl"}

# Devices. Who has no certificate of this site's authority does not get as far as MQTT. The certificate's common name
# is the user name and the client id, whatever the client says, so no device can end another's session.
# TLS 1.3 only: it hides the common name from who listens on the wire.
listener {setup.port}
cafile {at / "ca.crt"}
crlfile {at / "revoked.crl"}
{server}
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
max_connections 20000

# People and their programs, by password.
listener {setup.people_port}
{server}
max_connections 500

# The same for browsers, as WebSockets.
listener {setup.websocket_port}
protocol websockets
{server}
max_connections 500

# Above this a client is disconnected; MQTT 5 clients are told beforehand.
max_packet_size 1048576
# For each client: on their way at once, and kept for one that is slow or away. The bytes are what bounds the memory.
max_inflight_messages 500
max_queued_messages 10000
max_queued_bytes 8388608
# An MQTT 5 client that vanishes is found after one and a half times this, in seconds.
max_keepalive 300

# Sessions and retained messages outlive a restart; after a power cut at most the last minute of them is gone.
# Devices say their retained messages again when they reconnect, so only what people have written can be lost.
persistence true
persistence_location {setup.data.rstrip("/")}/
autosave_interval 60
# Who has not come back after so long is forgotten, with all that waits for it.
persistent_client_expiration 7d

log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
log_timestamp_format %Y-%m-%dT%H:%M:%S

# What you want to add, a bridge for example, goes here as *.conf, and stays.
include_dir {at / "conf.d"}
"""


def acl(setup: Setup) -> str:
    """``acl``: what each may say and hear. What is not named is forbidden, wills and retained messages included."""
    parts = [
        "# Who may read and write what. Written by `tinysight broker config`, which writes it anew each time.",
        "# Mosquitto grants any subscription, and delivers only what the rules let through.",
    ]
    for device, user in sorted(setup.devices.items()):
        neighbours = _home_assistant(setup.site, device) if setup.home_assistant else ()
        parts.append(_block(f"device {device}", user, [*_device_rules(setup.site, device), *neighbours]))
    for site, user in sorted(setup.bridges.items()):
        parts.append(_block(f"the broker of {site}", user, [*_device_rules(site, None)]))
    for name, person in sorted(setup.people.items()):
        rules = [f"topic read {t.ROOT}/#"]
        if setup.home_assistant:
            rules.append("topic read homeassistant/#")
        if person.role == "operator":
            sites = (setup.site, *sorted(setup.bridges))
            rules += [f"topic write {kind.filter(site=site)}" for site in sites for kind in TO_DEVICES]
            if setup.home_assistant:
                rules.append("topic write homeassistant/status")
        parts.append(_block(person.role, name, rules))
    return "\n".join(parts)


def _block(about: str, user: str, rules: Sequence[str]) -> str:
    return "\n".join(["", f"# {about}", f"user {user}", *rules, ""])


def _device_rules(site: str, device: str | None) -> Iterator[str]:
    for kind in FROM_DEVICES:
        yield f"topic write {kind.filter(site=site, device=device)}"
    for kind in TO_DEVICES:
        yield f"topic read {kind.filter(site=site, device=device)}"


def _home_assistant(site: str, device: str) -> tuple[str, ...]:
    return (f"topic write homeassistant/device/tinysight_{site}/{device}/config", "topic read homeassistant/status")


def passwords(people: Mapping[str, Person]) -> str:
    """``passwords``, as ``mosquitto_passwd`` would write it."""
    return "".join(f"{name}:{person.password}\n" for name, person in sorted(people.items()))


def hash_password(password: str) -> str:
    """PBKDF2 with SHA-512 and a salt of its own, in Mosquitto's notation."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ROUNDS)
    return f"$7${HASH_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def broker_toml(setup: Setup, device: str) -> str:
    """``broker.toml``: what goes into a device's ``agent.toml``."""
    return f"""\
# For the agent.toml of {setup.site}/{device}. The paths start from that file's folder.
site = "{setup.site}"
device = "{device}"

[broker]
url = "mqtts://{_in_url(setup.hosts[0])}:{setup.port}"
ca_file = "ca.crt"
cert_file = "device.crt"
key_file = "device.key"
"""


def bridge_conf(setup: Setup, site: str) -> str:
    """``bridge.conf``: what goes into ``conf.d`` of a site's broker, to pass its messages on."""
    out = "\n".join(f"topic {kind.filter(site=site)} out {kind.QOS}" for kind in FROM_DEVICES)
    back = "\n".join(f"topic {kind.filter(site=site)} in {kind.QOS}" for kind in TO_DEVICES)
    return f"""\
# For the broker of {site}: passes what its devices say on to {setup.hosts[0]}, and brings back what is said to them.
# The whole folder goes into the conf.d beside that broker's mosquitto.conf; correct the paths if that is elsewhere.
connection to-{setup.site}
address {setup.hosts[0]}:{setup.port}
bridge_cafile /etc/mosquitto/tinysight/conf.d/ca.crt
bridge_certfile /etc/mosquitto/tinysight/conf.d/bridge.crt
bridge_keyfile /etc/mosquitto/tinysight/conf.d/bridge.key
bridge_tls_version tlsv1.3
bridge_protocol_version mqttv50
# What waits for the other side outlives a restart, as far as max_queued_messages goes.
cleansession false
notifications false
keepalive_interval 20
restart_timeout 1 30
{out}
{back}
"""


def people_text(setup: Setup, name: str, password: str) -> str:
    """``people/<name>.txt``: the password, and the addresses in which it stands."""
    login, host = f"{name}:{password}@", _in_url(setup.hosts[0])
    return f"""\
# {name}, {setup.people[name].role} at the broker of {setup.site}. Written once: the broker keeps only a hash.
user      {name}
password  {password}
tcp       mqtts://{login}{host}:{setup.people_port}?ca=ca.crt
browser   wss://{login}{host}:{setup.websocket_port}/mqtt?ca=ca.crt
"""


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
