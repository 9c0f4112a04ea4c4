"""What root does to a store is done as the store's owner."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinysight_edge.store import Store
from tinysight_edge.update.owner import acting_as_owner, become_owner
from tinysight_edge.update.update import State

OWNER = 12345
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else")


@pytest.fixture
def root() -> Iterator[Path]:
    """A store of the agent's user that is not made yet, in its folder, which all may reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, OWNER, OWNER)
        yield Path(folder) / "store"


def test_what_is_written_is_the_owners_and_root_is_itself_again(root: Path) -> None:
    groups = os.getgroups()
    with acting_as_owner(root):
        Store(root).make()
        assert os.geteuid() == OWNER
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)
    assert {path.stat().st_uid for path in (root, *root.rglob("*"))} == {OWNER}


def test_who_becomes_the_owner_stays_it_and_all_that_the_store_writes_is_his(root: Path) -> None:
    if (pid := os.fork()) == 0:
        status = 1
        try:
            os.umask(0o077)
            become_owner(root)
            store = Store(root)
            with store.alone():
                store.save(State())
            assert os.getresuid() == (OWNER,) * 3
            with pytest.raises(PermissionError):
                os.seteuid(0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert {path.stat().st_uid for path in (root, *root.rglob("*"))} == {OWNER}


def test_a_store_of_roots_own_changes_nobody(tmp_path: Path) -> None:
    with acting_as_owner(tmp_path / "store"):
        assert os.geteuid() == 0
    become_owner(tmp_path / "store")
    assert os.getresuid() == (0, 0, 0)


@pytest.mark.parametrize("command", ["trust", "gc", "rollback"])
def test_a_command_of_roots_leaves_nothing_of_roots_in_the_store(command: str, root: Path) -> None:
    from tinysight_deploy.cli import _run

    given = Path(root.parent / "root.json")
    given.write_text("{}")
    if (pid := os.fork()) == 0:
        os.umask(0o077)
        status = 9
        try:
            status = _run(["store", command, *([str(given)] if command == "trust" else []), "--store", str(root)])
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (0 if command == "gc" else 2)
    assert {path.stat().st_uid for path in (root, *root.rglob("*"))} == {OWNER}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o644}
