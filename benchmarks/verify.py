"""How long a device's start takes from its ``state.json`` to a verified bundle, and to a loaded model.

    python benchmarks/verify.py             half a minute on 2 cores

A store holds the tests' belt bundle, or one with 256 MiB of filler beside it. ``verify_ms`` is `Store.boot` of the
small one: read the state, read the bundle, hash it, check it against its manifest. ``beyond_hash_ms`` is what that
takes beyond reading and hashing the same file alone, measured in turns in the same process; ``hash_mb_s`` is the
filler's bytes (10^6) by the second of `Store.boot`, and ``bare_mb_s`` those of hashlib over the same file, read whole.
``ready_s`` is from `Store.boot` of the small one to a model that has passed its self-test and was measured against the
other engines. Files are in the page cache; medians. Prints one JSON line last.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from msgspec.structs import replace
from steps import where

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release, UpdateState
from tinysight_edge.choice import choose
from tinysight_edge.store import Store
from tinysight_edge.update.update import attempt, progress, queue, tested

BELT = Path(__file__).parents[1] / "tests" / "golden" / "belt.bundle"
FILLER_BYTES = 256 << 20


def main() -> None:
    """Fill two stores, start from each, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as name:
        small, large = filled(Path(name) / "small", BELT.read_bytes()), filled(Path(name) / "large", with_filler())
        verify_s, bare_s = in_turns(turns, small)
        large_s, bare_large_s = in_turns(3, large)
        ready_s = median(timed(lambda: choose(small.boot())) for _ in range(5))
        size = active_path(large).stat().st_size
    figures = {
        "verify_ms": round(verify_s * 1e3, 2),
        "beyond_hash_ms": round((verify_s - bare_s) * 1e3, 2),
        "hash_mb_s": round(size / large_s / 1e6, 1),
        "bare_mb_s": round(size / bare_large_s / 1e6, 1),
        "ready_s": round(ready_s, 3),
        "bundle_kib": round(active_size() / 1024, 1),
    }
    print(json.dumps({**figures, "where": where()}))


def in_turns(turns: int, store: Store) -> tuple[float, float]:
    """Medians in seconds of a start and of hashing the same file, after one of each."""
    path = active_path(store)
    pairs = [
        (timed(store.boot), timed(lambda: hashlib.sha256(path.read_bytes()).hexdigest())) for _ in range(turns + 1)
    ][1:]
    return median(each[0] for each in pairs), median(each[1] for each in pairs)


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    begun_s = time.perf_counter()
    run()
    return time.perf_counter() - begun_s


def with_filler() -> bytes:
    """The belt bundle with a large file that nothing reads."""
    belt = Bundle.open(BELT)
    files = {name: belt.read(name) for name in belt.manifest.files}
    files["filler.bin"] = np.random.default_rng(1).bytes(FILLER_BYTES)
    return pack_bundle(replace(belt.manifest, files={name: file_ref(data) for name, data in files.items()}), files)


def filled(folder: Path, raw: bytes) -> Store:
    """A store in which a bundle is active."""
    store, manifest = Store(folder), Bundle.parse(raw, source="it").manifest
    release = Release(
        target=f"belt/{manifest.name}-{manifest.version}.bundle",
        digest=hashlib.sha256(raw).hexdigest(),
        size_bytes=len(raw),
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
    )
    with store.alone():
        store.path(release.digest).write_bytes(raw)
        state = progress(queue(store.state(), release, utc_now()), utc_now(), UpdateState.VERIFIED)
        store.save(tested(attempt(state, utc_now()), {}, utc_now()))
    return store


def active_path(store: Store) -> Path:
    """The active bundle's file."""
    active = store.state().active
    if active is None:
        raise SystemExit("nothing is active")
    return store.path(active.digest)


def active_size() -> int:
    """Of the small bundle, in bytes."""
    return BELT.stat().st_size


if __name__ == "__main__":
    main()
