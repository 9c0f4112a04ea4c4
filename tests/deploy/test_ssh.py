"""Connections to a real sshd: what comes back is bounded, and every way to fail says what to do."""

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.remote import ssh
from tinysight_deploy.remote.known_hosts import HostKey, KnownHosts
from tinysight_deploy.remote.ssh import Remote, connect, may_pass
from tinysight_deploy.remote.targets import SshTarget, elevate, plain

T = TypeVar("T")
Do = Callable[[Remote], Awaitable[T]]

users = st.from_regex(r"[A-Za-z_][A-Za-z0-9._-]{0,20}", fullmatch=True)
hosts = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,20}[A-Za-z0-9_])?", fullmatch=True) | st.ip_addresses(v=6).map(
    lambda address: f"[{address}]"
)
parts = st.lists(st.from_regex(r"[A-Za-z0-9_+@=,~][A-Za-z0-9._+@=,~-]{0,9}", fullmatch=True), max_size=4)


@hypothesis.settings(max_examples=50)
@given(users, hosts, st.integers(1, 65535), parts)
def test_an_address_survives_the_round_trip(user: str, host: str, port: int, prefix: list[str]) -> None:
    target = SshTarget.parse(f"ssh://{user}@{host}:{port}/{'/'.join(prefix)}")
    assert (target.user, target.port) == (user, port)
    assert SshTarget.parse(str(target)) == target
    assert str(target.program).endswith("/opt/tinysight/bin/tinysight")


@pytest.mark.parametrize(
    "text",
    [
        "pi@gate", "http://pi@gate", "ssh://gate", "ssh://@gate", "ssh://pi@", "ssh://-oProxyCommand=x@gate",
        "ssh://pi@-oProxyCommand=x", "ssh://pi:secret@gate", "ssh://pi@gate:0", "ssh://pi@gate:65536", "ssh://pi@gate:x",
        "ssh://pi@ga te", "ssh://pi@gate;reboot", "ssh://pi@gate/../etc", "ssh://pi@gate/a b", "ssh://pi@gate/-rf",
        "ssh://pi@gate/a\nb", "ssh://pi@[::g]", "ssh://pi@::1", "ssh://pi@gate?x", "ssh://pi@gäte",
        "ssh://pi@" + "a" * 600,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="ssh://user@host") as caught:
        SshTarget.parse(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("address", "user", "words"),
    [
        ("ssh://root@gate", "root", []),
        ("ssh://root@gate", "tinysight", ["runuser", "-u", "tinysight", "--"]),
        ("ssh://pi@gate", "root", ["sudo", "-n"]),
        ("ssh://pi@gate", "tinysight", ["sudo", "-n", "-u", "tinysight", "--"]),
        ("ssh://pi@gate/tmp/x", "root", []),
    ],
)
def test_who_runs_a_command(address: str, user: str, words: list[str]) -> None:
    assert elevate(SshTarget.parse(address), user) == words


@given(st.text() | st.binary())
def test_what_is_shown_cannot_move_the_terminal(text: str | bytes) -> None:
    shown = plain(text, 40)
    assert shown.isprintable()
    assert len(shown) <= 40


@pytest.fixture
def on(sshd: Any, tmp_path: Path) -> Callable[[Do[Any]], Any]:
    """Do something while logged in."""

    def run(do: Do[T], server: Any = sshd, **options: Any) -> T:
        async def inside() -> T:
            options.setdefault("identity", server.identity)
            target = SshTarget.parse(server.address(tmp_path / "device"))
            async with connect(target, KnownHosts(tmp_path / "known_hosts"), **options) as remote:
                return await do(remote)

        return asyncio.run(inside())

    return run


async def nothing(_remote: Remote) -> None:
    """Log in, and out again."""


def test_no_word_of_a_command_is_read_by_a_shell(on: Any) -> None:
    words = ["printf", "%s|", "a b", "$(reboot)", "'\"`", "", "--", "*", "\n", "ü"]
    done = on(lambda remote: remote.run(words, input=b"ignored"))
    assert (done.status, done.out.decode(), done.err) == (0, "|".join(words[2:]) + "|", b"")


def test_input_output_errors_and_status_come_through(on: Any) -> None:
    given_ = os.urandom(300_000)
    done = on(lambda remote: remote.run(["sh", "-c", "cat; echo no >&2; exit 3"], input=given_))
    assert (done.status, done.out, done.err) == (3, given_, b"no\n")


@pytest.mark.parametrize("line", [None, lambda _line: None], ids=["kept", "by lines"])
@pytest.mark.parametrize("command", [["yes"], ["cat", "/dev/zero"], ["sh", "-c", "yes >&2"]], ids=" ".join)
def test_a_command_that_prints_for_ever_is_left(on: Any, command: list[str], line: Any) -> None:
    with pytest.raises(DeviceError, match="printed") as caught:
        on(lambda remote: remote.run(command, most_bytes=100_000, line=line))
    assert not may_pass(caught.value)


def test_a_command_that_hangs_is_left_and_not_waited_for(on: Any) -> None:
    with pytest.raises(DeviceError, match="did not end within") as caught:
        on(lambda remote: remote.run(["sh", "-c", "exec 2>&1; sleep 60"], timeout_s=0.3))
    assert not may_pass(caught.value)


def test_lines_come_one_by_one_and_the_last_needs_no_end(on: Any) -> None:
    heard: list[bytes] = []
    on(lambda remote: remote.run(["printf", r"one\ntwo\n\nlast"], line=heard.append))
    assert heard == [b"one", b"two", b"", b"last"]


def test_a_file_arrives_whole_under_its_name_alone(on: Any, tmp_path: Path) -> None:
    local, there = tmp_path / "local", tmp_path / "there"
    local.write_bytes(os.urandom(3_000_001))
    there.write_bytes(b"before")
    told: list[int] = []
    assert on(lambda remote: remote.push(local, str(there), tell=told.append)) == 3_000_001
    assert there.read_bytes() == local.read_bytes()
    assert not (tmp_path / "there.part").exists()
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 3_000_001)


@pytest.mark.parametrize(
    ("there", "moved"),
    [
        pytest.param(lambda data: data[:200_000], 100_000, id="a beginning"),
        pytest.param(lambda data: data, 0, id="all of it"),
        pytest.param(lambda data: data[:100_000] + b"x" + data[100_001:200_000], 300_000, id="something else"),
        pytest.param(lambda data: data + b"more", 300_000, id="more than it"),
        pytest.param(lambda _data: b"", 300_000, id="nothing"),
    ],
)
def test_a_part_is_gone_on_with_only_if_it_is_a_part(
    on: Any, tmp_path: Path, there: Callable[[bytes], bytes], moved: int
) -> None:
    local, remote = tmp_path / "local", tmp_path / "there"
    local.write_bytes(os.urandom(300_000))
    (tmp_path / "there.part").write_bytes(there(local.read_bytes()))
    assert on(lambda device: device.push(local, str(remote))) == moved
    assert remote.read_bytes() == local.read_bytes()


def test_a_cut_in_the_middle_leaves_a_beginning_and_is_mended_by_the_next(on: Any, sshd: Any, tmp_path: Path) -> None:
    local, there = tmp_path / "local", tmp_path / "there"
    local.write_bytes(os.urandom(8 << 20))
    with pytest.raises(DeviceError, match="Run the same again") as caught:
        on(lambda remote: remote.push(local, str(there), tell=lambda done: sshd.cut() if done > 2 << 20 else None))
    assert may_pass(caught.value)
    assert not there.exists()
    came = (tmp_path / "there.part").stat().st_size
    assert 0 < came < 8 << 20
    assert on(lambda remote: remote.push(local, str(there))) == (8 << 20) - came
    assert there.read_bytes() == local.read_bytes()


def test_a_place_that_takes_no_files_is_an_error_with_a_mend(on: Any, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x")
    with pytest.raises(DeviceError, match="does not take files") as caught:
        on(lambda remote: remote.push(tmp_path / "local", str(tmp_path / "no" / "where")))
    assert not may_pass(caught.value)
    with pytest.raises(FileNotFoundError):
        on(lambda remote: remote.push(tmp_path / "none", str(tmp_path / "there")))


@pytest.mark.parametrize(
    "sftp",
    ["/bin/false", "/bin/sleep 60", "/usr/bin/yes", "/bin/cat /dev/zero", "/bin/cat /dev/urandom", "/no/such"],
)
def test_a_device_that_only_plays_at_taking_files_is_an_error_in_time(
    on: Any, sshd_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sftp: str
) -> None:
    monkeypatch.setattr(ssh, "_STALL_S", 1.0)
    (tmp_path / "local").write_bytes(b"x" * 100_000)
    with sshd_module.running_sshd(tmp_path / "sshd", sftp=sftp) as server, pytest.raises(DeviceError) as caught:
        on(lambda remote: remote.push(tmp_path / "local", str(tmp_path / "there")), server=server)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "there").exists()


def test_a_host_is_shown_once_and_kept(on: Any, tmp_path: Path) -> None:
    told: list[str] = []
    on(nothing, tell=told.append, remember=False)
    assert not (tmp_path / "known_hosts").exists()
    on(nothing, tell=told.append)
    on(nothing, tell=told.append)
    assert len(told) == 2
    assert all("SHA256:" in line for line in told)


def test_another_host_key_is_refused(on: Any, own_sshd: Any, tmp_path: Path) -> None:
    on(nothing, server=own_sshd)
    first = KnownHosts(tmp_path / "known_hosts").key(f"[127.0.0.1]:{own_sshd.port}")
    assert first is not None
    own_sshd.new_host_key()
    with pytest.raises(DeviceError, match="forget-key") as caught:
        on(nothing, server=own_sshd)
    assert first.fingerprint in str(caught.value)
    assert not may_pass(caught.value)
    assert KnownHosts(tmp_path / "known_hosts").forget(f"[127.0.0.1]:{own_sshd.port}")
    with pytest.raises(DeviceError, match="forget-key"):
        on(nothing, server=own_sshd, fingerprint=first.fingerprint)
    on(nothing, server=own_sshd)


def test_a_host_that_no_longer_has_a_key_of_the_kind_that_is_known_is_another(
    on: Any, sshd: Any, tmp_path: Path
) -> None:
    KnownHosts(tmp_path / "known_hosts").pin(f"[127.0.0.1]:{sshd.port}", HostKey("ecdsa-sha2-nistp256", b"x"))
    with pytest.raises(DeviceError, match="forget-key") as caught:
        on(nothing)
    assert not may_pass(caught.value)


def test_a_key_that_is_not_known_there_and_a_file_that_is_no_key(on: Any, sshd: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="ssh-copy-id") as caught:
        on(nothing, identity=sshd.stranger)
    assert not may_pass(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        on(nothing, identity=tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(ConfigError, match="is no private key"):
        on(nothing, identity=tmp_path / "text")
    lock(tmp_path / "locked")
    with pytest.raises(ConfigError, match="ssh-add"):
        on(nothing, identity=tmp_path / "locked")


def lock(path: Path) -> None:
    """Make a private key that needs a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)


def test_the_users_own_keys_log_in_past_one_that_is_locked(on: Any, sshd: Any, home: Path) -> None:
    (home / ".ssh").mkdir()
    lock(home / ".ssh/id_ed25519")
    with pytest.raises(DeviceError, match="ssh-copy-id"):
        on(nothing, identity=None)
    shutil.copy(sshd.identity, home / ".ssh/id_rsa")
    on(nothing, identity=None)


def test_the_agent_logs_in(on: Any, sshd: Any, home: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    socket_path = home / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL) as agent:
        try:
            eventually(socket_path.exists)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
            subprocess.run(["ssh-add", "-q", str(sshd.identity)], check=True)
            on(nothing, identity=None)
            with pytest.raises(DeviceError, match="ssh-copy-id"):  # a key that was named is the only one
                on(nothing, identity=sshd.stranger)
        finally:
            agent.kill()


def test_nobody_there_is_not_reached_and_may_be_later(sshd: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        target = SshTarget.parse(f"ssh://root@127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(DeviceError, match="cannot be reached") as caught:
            asyncio.run(_log_in(target, tmp_path, sshd.identity))
    assert may_pass(caught.value)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.0-old\r\n", b"SSH-2.0-x\r\n" + os.urandom(4000), b"x" * 100_000],
    ids=["silence", "http", "old", "garbage", "endless"],
)
def test_what_is_no_sshd_is_an_error_in_time(sshd: Any, tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                try:
                    peer.sendall(answer)
                    peer.settimeout(10)
                    while peer.recv(4096):
                        pass
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        target = SshTarget.parse(f"ssh://root@127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(DeviceError) as caught:
            asyncio.run(_log_in(target, tmp_path, sshd.identity))
        assert str(caught.value).isprintable()
        thread.join(15)
    assert not (tmp_path / "known").exists()


async def _log_in(target: SshTarget, folder: Path, identity: Path) -> None:
    async with connect(target, KnownHosts(folder / "known"), identity=identity, timeout_s=1.0):
        pass


def test_known_hosts_keep_the_first_of_two_at_once_and_refuse_nonsense(tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "new" / "known_hosts")
    keys = [HostKey("ssh-ed25519", bytes([number]) * 40) for number in range(16)]
    kept: list[HostKey] = []
    threads = [threading.Thread(target=lambda key=key: kept.append(known.pin("gate", key))) for key in keys]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(kept)) == 1
    assert known.key("gate") == kept[0]
    assert known.forget("gate")
    assert not known.forget("gate")
    known.path.write_text("# mine\n\ngate ssh-ed25519 ???\n")
    with pytest.raises(ConfigError, match="line 3"):
        known.key("gate")
