"""Who is at the other end of a connection, who we are, and what it means when that does not work.

`Client` judges the host's key, `read_identity` reads ours, `errors` says of every way in which SSH fails what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncssh

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.remote.known_hosts import HostKey
from tinysight_deploy.remote.targets import SshTarget, plain

__all__ = ["ALGORITHMS", "Client", "another_key", "errors", "may_pass", "read_identity"]

ALGORITHMS: Final = {
    "ssh-ed25519": ["ssh-ed25519"],
    "ecdsa-sha2-nistp256": ["ecdsa-sha2-nistp256"],
    "ecdsa-sha2-nistp384": ["ecdsa-sha2-nistp384"],
    "ecdsa-sha2-nistp521": ["ecdsa-sha2-nistp521"],
    "ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"],
}
"""Kind of a host's key → how it may sign."""


class Client(asyncssh.SSHClient):
    """Accepts the host's key when it is the one that is known, or the first."""

    def __init__(self, known: HostKey | None, fingerprint: str | None) -> None:
        self.known = known
        self.fingerprint = fingerprint
        self.met: HostKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 -- asyncssh's signature
        """Whether this is the host that is meant; asyncssh then has it prove that the key is its own."""
        self.met = HostKey(key.algorithm.decode(), key.public_data)
        wanted = self.fingerprint or (self.known.fingerprint if self.known else self.met.fingerprint)
        return self.met.fingerprint == wanted and (self.known is None or self.met == self.known)


def read_identity(path: Path) -> asyncssh.SSHKey:
    """A private key's file, read.

    Raises:
        ConfigError: it cannot be used.
    """
    try:
        return asyncssh.read_private_key(str(path))
    except asyncssh.KeyEncryptionError as error:
        raise _bad_identity(path, error) from error
    except asyncssh.KeyImportError as error:
        if "encrypted" in str(error) or "passphrase" in str(error).lower():
            raise ConfigError(
                f"{path} needs a passphrase.", mend="Add it to ssh-agent with `ssh-add`, and leave --identity out."
            ) from error
        raise _bad_identity(path, error) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}.", mend="Give --identity a private key's file."
        ) from error


def _bad_identity(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is no private key: {plain(str(error))}.", mend="Give --identity a private key's file.")


def may_pass(error: DeviceError) -> bool:
    """Whether the same may go well in a moment: the device was not reached, or the connection was lost."""
    cause = error.__cause__
    refused = (asyncssh.PermissionDenied, asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed)
    if isinstance(cause, refused):
        return False
    lost = (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, OSError)
    return isinstance(cause, lost)


def another_key(target: SshTarget, client: Client) -> DeviceError:
    """A host that is not the one that was met before."""
    wanted = client.fingerprint or (client.known.fingerprint if client.known else "another")
    met = client.met.fingerprint if client.met else "of another kind"
    return DeviceError(
        f"{target}: its host key is {met}, and was {wanted}: it was set up anew, or somebody is between.",
        mend=f"If it was set up anew, run `tinysight device forget-key {target}` and try again.",
    )


def _lost(target: SshTarget, error: Exception) -> DeviceError:
    return DeviceError(
        f"{target}: the connection was lost: {plain(str(error))}.",
        mend="Run the same again; it goes on where it stopped.",
    )


@contextmanager
def errors(target: SshTarget, client: Client | None = None) -> Iterator[None]:
    """Every way that SSH fails, as a DeviceError that says what to do."""
    try:
        yield
    except TimeoutError as error:
        raise DeviceError(
            f"{target} does not answer in time.", mend="Check that it is on and in the network, and try again."
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        if client is None or client.met is None:
            raise DeviceError(f"{target}: its host key cannot be used.", mend="Look at its sshd.") from error
        raise another_key(target, client) from error
    except asyncssh.PermissionDenied as error:
        raise DeviceError(
            f"{target} does not let {target.user} in with any key that we have.",
            mend=f"Give --identity, or bring your key there with `ssh-copy-id -p {target.port} "
            f"{target.user}@{target.host}`.",
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise DeviceError(
            f"{target} speaks no SSH that we do: {plain(str(error))}.", mend="Check that this is sshd's port."
        ) from error
    except (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
        raise _lost(target, error) from error
    except asyncssh.ChannelOpenError as error:
        raise DeviceError(
            f"{target} opens no session: {plain(str(error))}.", mend="Check that this user may run commands there."
        ) from error
    except asyncssh.SFTPError as error:
        raise DeviceError(
            f"{target} does not take files: {plain(str(error))}.",
            mend="Check the free space there, the rights, and that sshd has an sftp subsystem.",
        ) from error
    except asyncssh.Error as error:
        raise DeviceError(
            f"{target}: SSH failed: {plain(str(error))}.", mend="Try `ssh` by hand to see why."
        ) from error
    except OSError as error:
        if client is None:
            raise _lost(target, error) from error
        raise DeviceError(
            f"{target} cannot be reached: {plain(error.strerror or str(error))}.",
            mend="Check the address, that it is on, and that sshd runs.",
        ) from error
