"""Read ``agent.toml``, and say everything that is wrong with it: where, what, and what to do.

In: the file, or its bytes; the environment, for secrets.  Out: an `AgentConfig` whose paths are absolute, and
`Finding`s with their lines. No text of an error holds a password. Decides nothing about changes; that is `reload`.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tinysight_contract.errors import CameraError, ConfigError
from tinysight_contract.files import read_capped
from tinysight_contract.mqtt import Address
from tinysight_edge.config import checks, toml_lines
from tinysight_edge.config.checks import Finding, Where
from tinysight_edge.config.compare import UNKNOWN, compare, read_leaf
from tinysight_edge.config.overlay import merged, not_from_outside
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, FleetConfig, UpdateConfig

__all__ = ["Checked", "address_of", "check_config", "is_path", "parse_config", "read_config", "secret_of"]

MAX_BYTES: Final = 256 * 1024
MAX_SECRET_BYTES: Final = 4096
_ELSEWHERE: Final = re.compile(r"\d{1,3}|[A-Za-z][\w+.-]*:.*|/dev/video\d+|picamera2(\?.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file means.

    Attributes:
        source: the file.
        config: None when anything is wrong.
        findings: errors and warnings in the order of their lines.
    """

    source: Path
    config: AgentConfig | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be mended."""
        return tuple(each for each in self.findings if each.level == "error")

    def say(self, finding: Finding) -> str:
        """``agent.toml:12: cameras.gate.zones.dok: what``."""
        line = f":{finding.line}" if finding.line else ""
        return f"{self.source}{line}: {finding.key + ': ' if finding.path else ''}{finding.what}"

    def must(self) -> AgentConfig:
        """The configuration.

        Raises:
            ConfigError: of the first thing that is wrong, with the number of the others.
        """
        if self.config is not None:
            return self.config
        first, more = self.errors[0], len(self.errors) - 1
        rest = f" {more} more: run `tinysight config check {self.source}`." if more else ""
        raise ConfigError(self.say(first), mend=first.mend + rest)


def read_config(path: Path, *, environ: Mapping[str, str]) -> AgentConfig:
    """Read and check a file.

    Raises:
        ConfigError: it is missing or wrong.
    """
    return check_config(path, environ=environ).must()


def check_config(path: Path, *, environ: Mapping[str, str], labels: Collection[str] | None = None) -> Checked:
    """Read a file and say all that is wrong with it; one that cannot be read is a finding too."""
    try:
        raw = read_capped(path, MAX_BYTES)
    except OSError as error:
        return _refused(path, f"It cannot be read: {error.strerror}.", "Check the path and its rights.")
    return parse_config(raw, source=path, environ=environ, labels=labels)


def parse_config(
    raw: bytes,
    *,
    source: Path,
    environ: Mapping[str, str],
    labels: Collection[str] | None = None,
    patch: Mapping[str, Any] | None = None,
) -> Checked:
    """Read a file's content.

    Args:
        raw: no more than ``MAX_BYTES``, else it is refused unread.
        source: the file; relative paths start from its folder.
        environ: the environment, for secrets.
        labels: of the model, when it is known.
        patch: what lies over the content, which is right without it; findings are of both then.
    """
    if len(raw) > MAX_BYTES:
        return _refused(source, f"It has more than {MAX_BYTES // 1024} KiB.", "Name a configuration of an agent.")
    try:
        text = raw.decode()
        given = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return _refused(source, "It is not UTF-8.", "Save it as UTF-8.", line=line)
    except RecursionError:
        return _refused(source, "Its lists or tables lie too deep in each other.", "Write it as the reference shows.")
    except ValueError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else max(text.rstrip().count("\n") + 1, 1)
        what = re.sub(r" \(at .*\)$", "", str(error))
        return _refused(source, f"This is no TOML: {what}.", "Check quotes and brackets here and above.", line=line)
    found: list[Finding] = []
    if patch is not None:
        if forbidden := not_from_outside(patch, given):
            return Checked(source, None, tuple(forbidden))
        given = merged(given, patch)
    kept = compare(given, AgentConfig, (), found)
    config = None
    if all(each.what == UNKNOWN for each in found):
        config = _absolute(msgspec.convert(kept, AgentConfig, dec_hook=read_leaf), source.absolute().parent)
        found += checks.contradictions(config)
        found += _sources(config, {each.path for each in found}) + _secrets(config, environ) + _missing(config)
        found += _trust(config.broker, environ) if not any(each.path[:1] == ("broker",) for each in found) else []
        found += _repository(config.update)
        found += _fleet(config.fleet) if config.fleet is not None else []
        found += checks.unknown_labels(config, labels) if labels is not None else []
    placed = _placed(found, text)
    placed.sort(key=lambda each: (each.line or 0, each.path != ()))
    wrong = any(each.level == "error" for each in placed)
    return Checked(source, None if wrong else config, tuple(placed))


def secret_of(file: Path | None, env: str | None, environ: Mapping[str, str]) -> str | None:
    """The password that a file or a variable of the environment holds; None when neither is named.

    Raises:
        ConfigError: it is not there, cannot be read, is empty, or is no one line of text.
    """
    if env is not None:
        if not environ.get(env):
            raise ConfigError(f"The environment has no {env}.", mend="Set it, or name a password_file.")
        return environ[env]
    if file is None:
        return None
    try:
        raw = read_capped(file, MAX_SECRET_BYTES)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.", mend="Check the path and its rights.") from error
    try:
        secret = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or "\n" in secret or "\0" in secret or len(raw) > MAX_SECRET_BYTES:
        raise ConfigError(
            f"{file} holds no password.", mend="Write the password into it, in one line, and nothing else."
        )
    return secret


def address_of(broker: BrokerConfig, environ: Mapping[str, str]) -> Address:
    """Where the broker is, with its login and its certificates.

    Raises:
        ConfigError: the address or the password cannot be had, or the certificates do not go with it.
    """
    address = Address.parse(broker.url)
    address = replace(
        address,
        ca=broker.ca_file or address.ca,
        cert=broker.cert_file or address.cert,
        key=broker.key_file or address.key,
    )
    address.check()
    if broker.username is None:
        return address
    password = secret_of(broker.password_file, broker.password_env, environ)
    return replace(address, user=broker.username, password=password)


def is_path(source: str) -> bool:
    """Whether a camera's source is a file or a folder."""
    return _ELSEWHERE.fullmatch(source) is None


def _refused(source: Path, what: str, mend: str, *, line: int | None = None) -> Checked:
    return Checked(source, None, (Finding((), what, mend, line=line),))


def _placed(found: list[Finding], text: str) -> list[Finding]:
    """Each with the line of its place, else of what it lies in."""
    try:
        lines = toml_lines.lines_of(text.replace("\r\n", "\n")) if found else {}
    except RecursionError:  # what is just not too deep for tomllib; the key alone must do
        lines = {}

    def line(path: Where) -> int | None:
        return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)

    return [replace(each, line=line(each.path)) for each in found]


def _absolute(config: AgentConfig, folder: Path) -> AgentConfig:
    """Relative paths start from the file's folder."""

    def camera(each: CameraConfig) -> CameraConfig:
        source = str(folder / each.source) if each.source.strip() and is_path(each.source) else each.source
        return msgspec.structs.replace(each, source=source, password_file=under(each.password_file))

    def under(path: Path | None) -> Path | None:
        return None if path is None else folder / path

    model, broker, update, fleet = config.model, config.broker, config.update, config.fleet
    if fleet is not None:
        token_file, ca_file = under(fleet.token_file), under(fleet.ca_file)
        fleet = msgspec.structs.replace(fleet, token_file=token_file, ca_file=ca_file)
    repository = update.repository
    if repository is not None and "://" not in repository:
        repository = str(folder / repository)
    return msgspec.structs.replace(
        config,
        state=folder / config.state,
        model=msgspec.structs.replace(model, store=under(model.store), bundle=under(model.bundle)),
        broker=msgspec.structs.replace(
            broker,
            password_file=under(broker.password_file),
            ca_file=under(broker.ca_file),
            cert_file=under(broker.cert_file),
            key_file=under(broker.key_file),
        ),
        cameras={id_: camera(each) for id_, each in config.cameras.items()},
        update=msgspec.structs.replace(update, repository=repository, ca_file=under(update.ca_file)),
        fleet=fleet,
    )


def _sources(config: AgentConfig, refused: set[Where]) -> list[Finding]:
    """Sources that are neither a path nor of a kind that we know; what is refused already is not asked again."""
    from tinysight_edge.sources import known, unknown  # noqa: PLC0415 -- OpenCV, only where there is a camera

    found: list[Finding] = []
    for id_, camera in config.cameras.items():
        where = ("cameras", id_, "source")
        if where in refused or is_path(camera.source):
            continue
        try:
            error = None if known(camera.source) is not None else unknown(camera.source)
        except CameraError as wrong:
            error = wrong
        if error is not None:
            found.append(Finding(where, error.what, error.mend))
    return found


def _secrets(config: AgentConfig, environ: Mapping[str, str]) -> list[Finding]:
    """Passwords that cannot be had, and files of them that everybody may read.

    The latter is a warning: containers mount their secrets as 0444, and the agent would be dark for a detail.
    """
    found: list[Finding] = []
    parts: list[tuple[Where, BrokerConfig | CameraConfig]] = [(("broker",), config.broker)]
    parts += [(("cameras", id_), camera) for id_, camera in config.cameras.items()]
    for where, part in parts:
        file, env = part.password_file, part.password_env
        for key, one_file, one_env in (("password_file", file, None), ("password_env", None, env)):
            try:
                secret = secret_of(one_file, one_env, environ)
            except ConfigError as error:
                found.append(Finding((*where, key), error.what, error.mend))
                continue
            found += _open_to_all(one_file, (*where, key)) if secret is not None else []
    return found


def _open_to_all(file: Path | None, where: Where) -> list[Finding]:
    if file is None or not file.stat().st_mode & 0o004:
        return []
    return [Finding(where, f"Everybody may read {file}.", f"Say `chmod o-r {file}`.", "warning")]


def _trust(broker: BrokerConfig, environ: Mapping[str, str]) -> list[Finding]:
    """Certificates that cannot be used, and a password that crosses the network in the clear."""
    try:
        address = address_of(broker, environ)
        if address.encrypted:
            address.trust()
    except ConfigError as error:
        key = "cert_file" if str(broker.cert_file) in error.what else "ca_file" if broker.ca_file else "url"
        return [Finding(("broker", key), error.what, error.mend)]
    if address.exposes_password:
        mend = f"Use {address.scheme}s://; `tinysight broker config` makes a broker that speaks it."
        return [Finding(("broker", "url"), "The password crosses the network in the clear.", mend, "warning")]
    return []


def _repository(update: UpdateConfig) -> list[Finding]:
    """Where no bundle could ever be fetched from. The certificates may come later, and what runs needs neither."""
    found, where = [], update.repository
    if where is not None and "://" in where:
        try:
            url = urlsplit(where)
            good = url.scheme in {"http", "https"} and bool(url.hostname) and not url.query and not url.fragment
            good = good and url.port != 0
        except ValueError:
            good = False
        if not good:
            mend = "Give a folder's path, or an address such as https://models.example.com/repo."
            found.append(Finding(("update", "repository"), "This is no address of a repository.", mend))
    return found + _certificates(update.ca_file, ("update", "ca_file"))


def _fleet(fleet: FleetConfig) -> list[Finding]:
    """What may come later too: the device runs without its server."""
    found = _certificates(fleet.ca_file, ("fleet", "ca_file"))
    try:
        secret_of(fleet.token_file, None, {})
    except ConfigError as error:
        found.append(Finding(("fleet", "token_file"), error.what, error.mend, "warning"))
    else:
        found += _open_to_all(fleet.token_file, ("fleet", "token_file"))
    return found


def _certificates(file: Path | None, where: Where) -> list[Finding]:
    if file is None:
        return []
    from ssl import SSLError, create_default_context  # noqa: PLC0415 -- only where it is needed

    try:
        create_default_context(cafile=file)
    except (OSError, SSLError) as error:
        what = f"{file} cannot be read as certificates: {error}."
        return [Finding(where, what, "Name a file with the CA's certificate in PEM form.", "warning")]
    return []


def _missing(config: AgentConfig) -> list[Finding]:
    """Files that are named and not there. A camera's may come later; the model's must be there."""
    found: list[Finding] = []
    if config.model.bundle is not None and not _there(config.model.bundle, Path.is_file):
        mend = "Check the path, or make one with `tinysight convert`."
        found.append(Finding(("model", "bundle"), f"There is no bundle {config.model.bundle}.", mend))
    if config.model.store is not None and not _there(config.model.store, Path.is_dir):
        mend = "Check the path, or install a bundle with `tinysight flash`."
        found.append(Finding(("model", "store"), f"There is no store {config.model.store}.", mend))
    for id_, camera in config.cameras.items():
        if camera.source.strip() and is_path(camera.source) and not _there(Path(camera.source), Path.exists):
            what = f"There is no file or folder {camera.source}."
            found.append(Finding(("cameras", id_, "source"), what, "Check the path.", "warning"))
    return found


def _there(path: Path, ask: Callable[[Path], bool]) -> bool:
    """Python 3.11 throws where it may not look, or for a name that is too long; for us nothing is there."""
    try:
        return ask(path)
    except OSError:
        return False
