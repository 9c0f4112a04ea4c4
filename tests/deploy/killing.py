"""Run one command again and again, killed before each step that changes the folder.

``python killing.py FROM TO COMMAND …``: TO/1, TO/2, … are copies of FROM, in which the command was killed before its
first, second, … step; the last one is whole.
"""

import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing import beginning, rotation
from tinysight_deploy.signing.keys import KeyFolder

STEPS = ("replace", "rename", "unlink", "link")


def command(world: Path, words: list[str]) -> None:
    repository = Repository(world / "repo", world / "keys")
    now, keys = datetime.now(UTC), KeyFolder(world / "keys")
    match words:
        case ["init", kind]:
            policy, roots = (beginning.FLEET, 3) if kind == "fleet" else (beginning.HOBBY, 1)
            beginning.begin(world / "repo", keys, policy, roots=roots, threshold=min(2, roots), now=now)
        case ["add", path]:
            repository.add(Path(path))
        case ["retire", name]:
            repository.retire(repository.find(name))
        case ["rotate", role]:
            rotation.rotate(world / "repo", keys, role, now=now)
        case ["revoke", role]:
            rotation.revoke(world / "repo", keys, repository.chain().keys(role)[0].keyid, now=now)
        case _:
            raise ValueError(words)


def dying(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def step(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return call(*args, **kwargs)

    return step


def killed_at(step: int, world: Path, words: list[str]) -> bool:
    """Whether there was such a step."""
    if (child := os.fork()) == 0:
        left = [step]
        for name in STEPS:
            setattr(os, name, dying(getattr(os, name), left))
        command(world, words)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in {0, 9}:
        raise SystemExit(f"step {step} ended with {status}")
    return status == 9


def main(begin: Path, out: Path, words: list[str]) -> None:
    step = 1
    while True:
        shutil.copytree(begin, out / str(step))
        if not killed_at(step, out / str(step), words):
            break
        step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
