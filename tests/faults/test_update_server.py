"""A server that is slow, cuts, lies or is gone: an update ends with the right code, and the next goes on from there."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from tinysight_contract.updates import Code
from tinysight_edge.update.selftest import Verdict
from tinysight_edge.update.sources import Budget, open_source

FIRST: Final = {"cut_after": 100_000}
"""An answer ends after so many bytes of it."""
SPARE_BYTES: Final = 8 << 20
"""May be sent besides twice the file, which is its budget: what the kernel holds on the way counts as sent."""

TROUBLES: Final[dict[str, tuple[Code | None, list[dict[str, Any]]]]] = {
    "drips": (Code.TOO_SLOW, [FIRST, {"drip_s": 0.1}]),
    "says nothing": (Code.TOO_SLOW, [{"silent": "connected"}]),
    "stops amid the file": (Code.TOO_SLOW, [FIRST, {"silent": "body", "cut_after": 0}]),
    "cuts later each time": (None, [FIRST]),
    "cuts at once each time": (Code.UNREACHABLE, [FIRST, {"cut_after": 0, "reset": True}]),
    "says that it is longer": (Code.TOO_LARGE, [{"length": 10_000_000}]),
    "says that it is shorter": (Code.TAMPERED, [{"length": 1000}]),
    "never ends": (Code.TOO_LARGE, [{"endless": True}]),
    "ignores Range": (None, [FIRST, {"ignore_range": True}]),
    "sends another part": (None, [FIRST, {"shift": 7}, {}]),
    "answers 404 for ever": (Code.NOT_FOUND, [FIRST, {"status": 404}]),
    "answers 503 for ever": (Code.UNREACHABLE, [{"status": 503}]),
    "answers 503 twice": (None, [{"status": 503, "headers": {"Retry-After": "1"}}] * 2 + [{}]),
    "speaks no HTTP": (Code.UNREACHABLE, [{"garbage": b"SSH-2.0-no\r\n"}]),
    "serves another file": (Code.TAMPERED, [{"body": bytes(235_520)}]),
}
"""By what a server does: the code, and what is wrong with its answers about the bundle in turn, the last for ever."""


class InTurn(dict[str, Any]):
    """Faults of one path, each for one request, the last for all that follow."""

    def __init__(self, path: str, faults: list[Any]) -> None:
        self._path, self._faults = path, faults

    def get(self, path: str, default: Any = None) -> Any:
        if path != self._path:
            return default
        return self._faults.pop(0) if len(self._faults) > 1 else self._faults[0]


def passes(*_: object, **__: object) -> Verdict:
    """The self-test, which is not what is tried."""
    return Verdict()


def test_whatever_a_server_does_an_update_ends_within_its_budget_and_goes_on_from_there(
    first_field: Any, faulty: Any, serve: Any, forked: Any, tell: Any, tmp_path: Path
) -> None:
    told = []
    for number, (name, (code, faults)) in enumerate(TROUBLES.items()):
        device = first_field.copied(tmp_path / str(number))
        release = device.shop.add(device.make(2), 2)
        server = serve(device.shop.folder)
        path = str(device.shop.payload(release.target).relative_to(device.shop.folder))
        server.always = InTurn(path, [faulty.Fault(**fault) for fault in faults])
        window_s = 0.8 if code is Code.TOO_SLOW else 10.0  # a busy machine is no slow server
        run = partial(
            forked,
            *device.command(2, source=server.url),
            sources__open_source=partial(open_source, wait=lambda _: None),
            sources__Budget=partial(Budget, tries=3, window_s=window_s),
            selftest__run_selftest=passes,
        )
        said = run()
        assert (said.code, said.status) == (None if code is None else code.value, 0 if code is None else 1), (
            name,
            said,
        )
        assert device.store.boot().manifest.release == 1
        assert server.sent < 2 * release.size_bytes + SPARE_BYTES, name
        told.append(f"{name} `{'goes its way' if code is None else code.value}`")
        if code is None:
            continue
        assert device.store.state().newest.code is code
        part = device.store.part(release.digest)
        here = part.stat().st_size if part.exists() else 0
        assert here >= (FIRST["cut_after"] if faults[0] is FIRST else 0), f"{name}: what came is kept"
        server.always, server.asked, server.sent = {}, [], 0
        said = run(sources__Budget=Budget)
        assert (said.status, said.lines[-1]["state"]) == (0, "trial"), (name, said)
        asked = [each.headers.get("range") for each in server.asked if each.path == path]
        missing = release.size_bytes - here  # nothing, where more came than the file
        assert asked == ([f"bytes={here}-" if here else None] if missing else []), name
        assert said.lines[-1]["moved_bytes"] == missing, name
        device.check_runs(1)
    tell("a server of updates misbehaves", published=f"{', '.join(told)}; the next try sends what is missing alone")


def test_a_server_that_is_gone_or_has_lost_what_is_signed_is_told_and_what_runs_goes_on(
    device: Any, serve: Any, forked: Any
) -> None:
    device.shop.add(device.make(2), 2)
    server = serve(device.shop.folder)
    run = partial(
        forked,
        *device.command(2, source=server.url),
        sources__open_source=partial(open_source, wait=lambda _: None),
    )
    (device.shop.folder / "metadata" / "timestamp.json").rename(device.shop.folder / "timestamp.json")
    assert run().code == Code.NOT_FOUND.value
    server.close()
    assert run().code == Code.UNREACHABLE.value
    device.check_runs(1)
