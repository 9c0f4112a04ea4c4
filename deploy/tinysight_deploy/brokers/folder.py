"""A site's broker as a folder: made once, added to later, never half.

::

    setup.json     what has been asked for so far; everything in broker/ follows from it
    ca.crt ca.key  the authority; the key belongs offline when nothing is to be signed
    broker/        what the broker's machine needs, and no more
    devices/ID/    what a device needs; device.csr instead of device.key where the device has made its key itself
    bridges/SITE/  what another site's broker needs to pass its messages on to this one
    people/NAME.txt  a password in clear, written once

One command at a time writes here. What is signed comes first and ``setup.json`` after it, so a run that was killed is
repeated without harm.
"""

import secrets
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import locked, replace_file
from tinysight_deploy.brokers import config as c
from tinysight_deploy.brokers import pki
from tinysight_deploy.brokers.emqx import emqx_conf, emqx_rules

__all__ = ["Wishes", "configure", "load"]

MAX_SETUP_BYTES: Final = 64 << 20
_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What one run asks for; what is None or empty stays as it was.

    Attributes:
        revoke: devices, bridges and people that are to be let in no longer.
        changes: fields of `Setup` and their new values.
        requests: by device, a certificate request in PEM for the key that it made itself. Certificates for another key
            of that device are believed no longer.
    """

    site: str | None = None
    hosts: Sequence[str] = ()
    devices: Sequence[str] = ()
    bridges: Sequence[str] = ()
    readers: Sequence[str] = ()
    operators: Sequence[str] = ()
    revoke: Sequence[str] = ()
    changes: dict[str, object] = field(default_factory=dict)
    requests: dict[str, bytes] = field(default_factory=dict)


def configure(out: Path, wishes: Wishes) -> dict[str, list[str]]:
    """Make the folder, or add to it; what was made, renewed and revoked, by name.

    Raises:
        ConfigError: a wish cannot be, the folder holds something else or is another's for long, or ``ca.key`` is
            needed and not there.
        ContractError: a name is no id.
        OSError: the folder cannot be read or written.
    """
    if not out.is_dir():
        _merge(None, wishes, out)  # what cannot be leaves no folder
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(out):
        return _configure(out, wishes)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Have the folder to oneself; whoever adds devices at the same time has his turn in a moment."""
    busy = ConfigError(f"Another command writes to {out}.", mend="Wait until it has ended, and run the same again.")
    until = time.monotonic() + _WAIT_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(out, busy))
                break
            except ConfigError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)
        yield


def _configure(out: Path, wishes: Wishes) -> dict[str, list[str]]:
    old = load(out / "setup.json")
    setup, clear = _merge(old, wishes, out)
    for name in ("broker", "broker/conf.d", "devices", "bridges", "people"):
        (out / name).mkdir(mode=0o700, exist_ok=True)
    if old is None and not (out / "ca.crt").exists():
        pki.Authority.found(out, setup.site)
    authority = pki.Authority.load(out)

    setup, made, renewed = _sign(out, setup, old, authority, wishes.requests)
    for name, password in clear.items():
        pki.write_private(out / "people" / f"{name}.txt", c.people_text(setup, name, password).encode())
    pki.write_private(out / "setup.json", msgspec.json.format(msgspec.json.encode(setup, order="sorted"), indent=2))

    gone = list(dict.fromkeys(wishes.revoke))
    for name in gone:
        shutil.rmtree(out / "devices" / name, ignore_errors=True)
        shutil.rmtree(out / "bridges" / name, ignore_errors=True)
        (out / "people" / f"{name}.txt").unlink(missing_ok=True)
    _write_broker(out / "broker", setup, authority, (out / "ca.crt").read_bytes())
    return {"made": [*made, *clear], "renewed": renewed, "revoked": gone}


def load(path: Path) -> c.Setup | None:
    """What has been asked for so far, from ``setup.json``; None before the first time.

    Raises:
        ConfigError: the file holds something else.
        OSError: it cannot be read.
    """
    if not path.exists():
        return None
    if path.stat().st_size > MAX_SETUP_BYTES:
        raise ConfigError(f"{path} is larger than 64 MiB.", mend="Choose another --out.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=c.Setup).checked()
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} cannot be understood: {error}.", mend="Take it from a backup.") from error


def _merge(old: c.Setup | None, wishes: Wishes, out: Path) -> tuple[c.Setup, dict[str, str]]:
    """What is to hold from now on, and the passwords of those who are new."""
    if old is None:
        if wishes.site is None:
            raise ConfigError(f"{out} holds no setup yet.", mend="Give --site.")
        old = c.Setup(site=wishes.site, hosts=(), installed_at=str((out / "broker").resolve()))
    elif wishes.site not in {None, old.site}:
        raise ConfigError(f"{out} is of the site {old.site!r}.", mend="Choose another --out, or leave --site out.")
    if len(wishes.readers) + len(wishes.operators) != len({*wishes.readers, *wishes.operators}):
        raise ConfigError("A name is given twice.", mend="Make it a reader or an operator.")
    for request in wishes.requests.values():
        pki.requested_key(request)
    wanted = {*wishes.devices, *wishes.bridges, *wishes.readers, *wishes.operators}
    if both := wanted.intersection(wishes.revoke):
        raise ConfigError(
            f"{min(both)!r} is to be revoked and let in at once.",
            mend=f"Run it twice: first with --revoke {min(both)}, then with the rest.",
        )
    known = {*old.devices, *old.bridges, *old.people}
    if missing := [name for name in wishes.revoke if name not in known]:
        raise ConfigError(f"Nobody is called {missing[0]!r} here.", mend=f"Known: {', '.join(sorted(known)[:20])}.")
    hosts = tuple(wishes.hosts) or old.hosts or (socket.gethostname(),)
    people = {name: person for name, person in old.people.items() if name not in wishes.revoke}
    clear: dict[str, str] = {}
    roles: dict[str, c.Role] = {
        **dict.fromkeys(wishes.readers, "reader"),
        **dict.fromkeys(wishes.operators, "operator"),
    }
    for name, role in roles.items():
        if name in people:
            people[name] = replace(people[name], role=role)
            continue
        clear[name] = secrets.token_urlsafe(20)
        people[name] = c.Person(role, c.hash_password(clear[name]))
    before = {**old.devices, **old.bridges}
    serials = {each for name in wishes.revoke if name in before for each in _serials(out, old, name)}
    setup = replace(
        old,
        revoked=old.revoked | serials,
        hosts=hosts,
        people=people,
        devices=_identities(old.devices, wishes.devices, wishes.revoke),
        bridges=_identities(old.bridges, wishes.bridges, wishes.revoke),
        **wishes.changes,
    )
    return setup.checked(), clear


def _identities(old: dict[str, str], wanted: Sequence[str], revoked: Collection[str]) -> dict[str, str]:
    kept = {name: user for name, user in old.items() if name not in revoked}
    return kept | {name: pki.new_identity(name) for name in wanted if name not in kept}


def _serials(out: Path, old: c.Setup, name: str) -> set[str]:
    """All certificates of a device or a bridge; a setup of an earlier version knows of none, so files are asked too."""
    paths = (out / "devices" / name / "device.crt", out / "bridges" / name / "bridge.crt")
    found = {_serial(pki.read_certificate(path)) for path in paths if path.exists()}
    return found | old.issued.get({**old.devices, **old.bridges}[name], frozenset())


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def _sign(
    out: Path,
    setup: c.Setup,
    old: c.Setup | None,
    authority: pki.Authority,
    requests: Mapping[str, bytes],
) -> tuple[c.Setup, list[str], list[str]]:
    """Make what is missing and renew what ends soon or says something else than it should; the names of both.

    The setup that is given back knows each certificate: a renewed one is believed until it ends, unless it is revoked.
    """
    made: list[str] = []
    renewed: list[str] = []
    issued: dict[str, frozenset[str]] = {}
    known = set() if old is None else {*old.devices.values(), *old.bridges.values()}
    current = out / "broker" / "server.crt"
    if not current.exists() or (old and old.hosts != setup.hosts) or pki.ends_soon(pki.read_certificate(current)):
        (renewed if current.exists() else made).append("server")
        authority.sign_server(current.with_suffix(""), list(dict.fromkeys((*setup.hosts, *c.LOCAL))))
    for kind, clients, name_of_text, text in (
        ("device", setup.devices, "broker.toml", c.broker_toml),
        ("bridge", setup.bridges, "bridge.conf", c.bridge_conf),
    ):
        for name, identity in clients.items():
            folder = out / f"{kind}s" / name
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / f"{kind}.crt"
            serials = set(setup.issued.get(identity, ()))
            if path.exists():
                serials.add(_serial(pki.read_certificate(path)))
            if identity not in known:  # what lies there is of a run that was killed: somebody revoked may have the key
                for ending in (".crt", ".key", ".csr"):
                    path.with_suffix(ending).unlink(missing_ok=True)
            if kind == "device" and name in requests and _is_another(path, requests[name]):
                setup = replace(setup, revoked=setup.revoked | serials)
                _keep(path.with_suffix(".csr"), requests[name])
                path.unlink(missing_ok=True)
                path.with_suffix(".key").unlink(missing_ok=True)
            if not _stands(path, identity):
                (renewed if path.exists() else made).append(name)
                site = setup.site if kind == "device" else name
                if (request := path.with_suffix(".csr")).exists():
                    authority.sign_request(request.read_bytes(), path, site=site, name=name, identity=identity)
                else:
                    authority.sign_client(path.with_suffix(""), site=site, name=name, identity=identity)
                serials.add(_serial(pki.read_certificate(path)))
            issued[identity] = frozenset(serials) - setup.revoked
            _keep(folder / "ca.crt", (out / "ca.crt").read_bytes())
            _keep(folder / name_of_text, text(setup, name).encode())
    return replace(setup, issued=issued), made, renewed


def _stands(path: Path, identity: str) -> bool:
    """Whether a certificate is there, says what it should, and will for a while."""
    if not path.exists():
        return False
    certificate = pki.read_certificate(path)
    return pki.identity_of(certificate) == identity and not pki.ends_soon(certificate)


def _is_another(path: Path, request: bytes) -> bool:
    """Whether a request is for another key than the certificate, or there is none."""
    return not path.exists() or pki.read_certificate(path).public_key() != pki.requested_key(request)


def _keep(path: Path, data: bytes) -> None:
    """Write only what is not there already: a thousand devices need no thousand syncs each time."""
    if not path.exists() or path.read_bytes() != data:
        replace_file(path, data)


def _write_broker(folder: Path, setup: c.Setup, authority: pki.Authority, ca: bytes) -> None:
    replace_file(folder / "ca.crt", ca)
    revoked, path = {int(serial, 16) for serial in setup.revoked}, folder / "revoked.crl"
    if not path.exists() or {each.serial_number for each in x509.load_pem_x509_crl(path.read_bytes())} != revoked:
        authority.revoke(path, revoked)
    replace_file(folder / "acl", c.acl(setup).encode())
    pki.write_private(folder / "passwords", c.passwords(setup.people).encode())
    replace_file(folder / "mosquitto.conf", c.mosquitto_conf(setup).encode())
    if setup.emqx:
        replace_file(folder / "emqx.conf", emqx_conf(setup).encode())
        pki.write_private(folder / "rules.json", emqx_rules(setup))
