"""A connection to a device by SSH: run a command there, bring a file there.

In: an `SshTarget`, the known host keys.  Out: a `Remote`. What a device answers is bounded in bytes and in time, and
every way to fail ends as a `DeviceError` (`login`). Keys alone log in, never a password; the user's
``~/.ssh/config`` is not read, so that an address means the same for everybody. Only this folder knows asyncssh.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shlex
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import asyncssh

from tinysight_contract.errors import DeviceError
from tinysight_deploy.remote.known_hosts import HostKey, KnownHosts
from tinysight_deploy.remote.login import ALGORITHMS, Client, another_key, errors, may_pass, read_identity
from tinysight_deploy.remote.streams import BLOCK_BYTES, feed, lines, whole
from tinysight_deploy.remote.targets import SshTarget, elevate, plain

__all__ = ["Done", "Remote", "SshTarget", "connect", "elevate", "go", "may_pass"]

T = TypeVar("T")

_BLOCKS_ON_THE_WAY: Final = 64
_STALL_S: Final = 60.0
_MOST_ERRORS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended.

    Attributes:
        status: 0 to 255 as the command ended; below 0 when a signal ended it or nobody knows.
        out: its standard output, empty when that was read by lines.
        err: its standard error.
    """

    status: int
    out: bytes
    err: bytes


@asynccontextmanager
async def connect(
    target: SshTarget,
    known_hosts: KnownHosts,
    *,
    identity: Path | None = None,
    fingerprint: str | None = None,
    tell: Callable[[str], None] = lambda _line: None,
    remember: bool = True,
    timeout_s: float = 20.0,
    keepalive_s: float = 15.0,
) -> "AsyncIterator[Remote]":
    """Log in, and stay so while the ``with`` lasts.

    Args:
        target: which device.
        known_hosts: the host keys that are known; a first one is added.
        identity: a private key's file, instead of the agent and the user's own keys.
        fingerprint: what the host key must be, when that is known from elsewhere.
        tell: is told in a sentence when a host is met for the first time.
        remember: whether a first host key is kept.
        timeout_s: until it must have logged in.
        keepalive_s: how often the device is asked whether it lives; after three silent times it is lost.

    Raises:
        ConfigError: the identity or the file of known hosts cannot be used.
        DeviceError: the device cannot be reached, has another host key, or does not let us in.
    """
    known = known_hosts.key(target.host_name)
    client = Client(known, fingerprint)
    kinds = sorted(ALGORITHMS, key=lambda kind: known is None or kind != known.kind)  # the known kind first
    keys = () if identity is None else [read_identity(identity)]
    with errors(target, client):
        async with asyncio.timeout(timeout_s):
            connection, _ = await asyncssh.create_connection(
                lambda: client,
                target.host,
                target.port,
                username=target.user,
                config=None,
                known_hosts=lambda _host, _addr, _port: ([], [], []),
                server_host_key_algs=[name for kind in kinds for name in ALGORITHMS[kind]],
                client_keys=keys,
                agent_path=() if identity is None else None,
                preferred_auth=("publickey",),
                keepalive_interval=keepalive_s,
                keepalive_count_max=3,
                compression_algs=None,
            )
    try:
        if known is None and client.met is not None:
            kept = known_hosts.pin(target.host_name, client.met) if remember else client.met
            if kept != client.met:
                raise another_key(target, client)
            if kept is client.met:  # else somebody else has just told of it
                said = "and remembered" if remember else "not remembered"
                tell(f"{target.host_name}: host key {kept.fingerprint}, met for the first time, {said}.")
        yield Remote(target, connection, client.met)
    except BaseException:
        connection.abort()  # what it still sends is not waited for
        raise
    finally:
        connection.close()
        with contextlib.suppress(TimeoutError, asyncssh.Error, OSError):
            async with asyncio.timeout(5):
                await connection.wait_closed()


class Remote:
    """A device that one is logged in to. Made by `connect`."""

    def __init__(self, target: SshTarget, connection: asyncssh.SSHClientConnection, host_key: HostKey | None) -> None:
        self.target = target
        self.host_key = host_key
        self._connection = connection

    async def run(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 -- as in subprocess
        timeout_s: float | None = 60.0,
        most_bytes: int | None = 1 << 20,
        line: Callable[[bytes], None] | None = None,
    ) -> Done:
        """Run a command as who logged in, each word quoted.

        Args:
            command: program and arguments; nothing in it is read by a shell.
            input: its standard input.
            timeout_s: until it must have ended; None for a command that is followed.
            most_bytes: that it may print, on each of its two outputs; None where ``line`` keeps nothing.
            line: is called with each line of the standard output as it comes, which is then not kept.

        Raises:
            DeviceError: it printed too much or took too long, or the connection was lost. How it ended is no error.
        """
        called = plain(shlex.join(command), 80)
        with errors(self.target):
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._run(command, input, most_bytes, line)
            except TimeoutError:
                raise DeviceError(
                    f"{self.target}: `{called}` did not end within {timeout_s or 0:g} s.",
                    mend="Look what the device is busy with, and try again.",
                ) from None  # the connection is not at fault: see may_pass
            except OverflowError as error:
                raise DeviceError(
                    f"{self.target}: `{called}` printed {error}.",
                    mend="Look at the device: this is not what TinySight answers.",
                ) from error

    async def _run(
        self, command: Sequence[str], given: bytes, most_bytes: int | None, line: Callable[[bytes], None] | None
    ) -> Done:
        process = await self._connection.create_process(shlex.join(command), encoding=None)
        try:
            out, err, _ = await asyncio.gather(
                whole(process.stdout, most_bytes) if line is None else lines(process.stdout, most_bytes, line),
                whole(process.stderr, most_bytes or _MOST_ERRORS),
                feed(process.stdin, given),
            )
            await process.wait_closed()
        except BaseException:
            process.channel.abort()  # and does not wait: what runs there may never end
            raise
        status = process.returncode
        return Done(-1 if status is None else status, out, err)

    async def push(self, local: Path, remote: str, *, tell: Callable[[int], None] = lambda _bytes: None) -> int:
        """Bring a file there under its name at once; goes on with a part that an earlier try has left.

        Everybody may read it, whatever umask sshd gives its sessions: its folder says who may come so far.

        Args:
            local: the file.
            remote: its path there, in a folder that exists and that nobody else can write to.
            tell: is told how many bytes of it are there, from what was there already.

        Returns:
            How many bytes were moved.

        Raises:
            OSError: the local file cannot be read.
            DeviceError: the device's disk refuses it, or the connection was lost: what is there stays for the next try.
        """
        part = f"{remote}.part"
        with local.open("rb") as source, errors(self.target):
            size = os.fstat(source.fileno()).st_size
            async with asyncio.timeout(_STALL_S):
                sftp = await self._connection.start_sftp_client()
            async with sftp:
                start = await self._common(sftp, source, part, size)
                tell(start)
                async with await sftp.open(part, "r+b" if start else "wb", block_size=0) as out:
                    if start:
                        await out.truncate(start)
                    await _write(source, out, start, tell)
                    async with asyncio.timeout(_STALL_S):
                        await out.chmod(0o644)
                        with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                            await out.fsync()
                await _rename(sftp, part, remote)
        return size - start

    async def _common(self, sftp: asyncssh.SFTPClient, source: BinaryIO, part: str, size: int) -> int:
        """How many bytes of the file are there already and are the same."""
        async with asyncio.timeout(_STALL_S):
            try:
                there = (await sftp.lstat(part)).size or 0
            except asyncssh.SFTPNoSuchFile:
                return 0
        if not 0 < there <= size:
            return 0
        done = await self.run(["sha256sum", "--", part], most_bytes=4096)
        same = done.status == 0 and done.out.split()[:1] == [_digest(source, there).encode()]
        return there if same else 0


async def _write(source: BinaryIO, out: asyncssh.SFTPClientFile, start: int, tell: Callable[[int], None]) -> None:
    """Blocks in their order, some of them on the way at once; what is there is always a beginning of the file."""
    on_the_way: deque[tuple[int, asyncio.Task[int]]] = deque()

    async def oldest() -> None:
        end, task = on_the_way.popleft()
        async with asyncio.timeout(_STALL_S):
            await task
        tell(end)

    at = start
    try:
        source.seek(start)
        while block := source.read(BLOCK_BYTES):
            on_the_way.append((at + len(block), asyncio.ensure_future(out.write(block, at))))
            at += len(block)
            if len(on_the_way) >= _BLOCKS_ON_THE_WAY:
                await oldest()
        while on_the_way:
            await oldest()
    finally:
        for _, task in on_the_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in on_the_way), return_exceptions=True)


async def _rename(sftp: asyncssh.SFTPClient, part: str, remote: str) -> None:
    async with asyncio.timeout(_STALL_S):
        try:
            await sftp.posix_rename(part, remote)
        except asyncssh.SFTPOpUnsupported:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(remote)
            await sftp.rename(part, remote)


def _digest(source: BinaryIO, size: int) -> str:
    """SHA-256 of the file's first ``size`` bytes."""
    digest = hashlib.sha256()
    source.seek(0)
    while size > 0 and (chunk := source.read(min(1 << 20, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def go(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, without what asyncio has to say of every write to a connection that was lost."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    return asyncio.run(main)
