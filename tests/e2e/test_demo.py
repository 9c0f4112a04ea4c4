"""The whole way in one go, as the README's first screen promises it."""

import json
from typing import Any

import pytest

from tinysight_contract.messages import Event, decode


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_goes_the_whole_way_and_checks_itself(tinysight: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """Fewer pictures than its usual 3000, for time's sake: it still promises what it always does."""
    monkeypatch.setenv("TINYSIGHT_KEYS", str(tmp_path / "mine"))
    monkeypatch.setenv("TINYSIGHT_PASSPHRASE", "mine")
    done = tinysight("demo", "--images", "1200", "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    *_, event, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert list(figures) == [
        "train_s", "float_ap50", "float_ap50_95", "int8_ap50", "int8_ap50_95", "bundle_kib", "int8_ms", "float_ms",
        "frames", "events_sent", "events_received", "missing", "total_s",
    ]  # fmt: skip
    assert figures["int8_ap50"] >= 0.90
    assert figures["int8_ap50_95"] >= figures["float_ap50_95"] - 0.01
    assert figures["missing"] == 0
    assert figures["events_received"] == figures["events_sent"] > 30
    assert decode(event.encode(), Event).site == "demo"
    for name in ("data", "run/curves.png", "belt.bundle", "belt.report.html", "device/state.json"):
        assert (tmp_path / "tinysight-demo" / name).exists()
    assert not (tmp_path / "mine").exists()
    (key,) = (tmp_path / "tinysight-demo" / "keys").glob("*.pem")
    assert b"ENCRYPTED" not in key.read_bytes()


def test_the_demo_leaves_a_folder_that_is_not_its_own_alone(tinysight: Any, tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").write_text("keep")
    done = tinysight("demo", "--out", "mine")
    assert done.returncode == 2
    assert (tmp_path / "mine" / "keep.txt").read_text() == "keep"
