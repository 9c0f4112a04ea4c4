"""Times and sizes carry their unit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.units import Seconds, Size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20.0), ("1.5s", 1.5), ("500ms", 0.5), ("2 min", 120.0), ("1h", 3600.0), ("1d", 86400.0), ("0s", 0.0)],
)
def test_a_time_is_read_in_seconds(text: str, seconds: float) -> None:
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("512MiB", 512 << 20), ("1.5kB", 1500), ("2GB", 2 * 10**9), ("1GiB", 1 << 30)]
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize(
    "text",
    ["20", 20, 20.0, None, True, "", "s", "-1s", "1e3s", "1S", "1 m", "1s ", "1\ns", "1.s", ".5s", "20MiB", "٣s"],
)
def test_what_is_no_time_with_a_unit_is_refused_with_the_units(text: object) -> None:
    with pytest.raises(ValueError, match="units are ms, s, min, h, d"):
        Seconds.parse(text)


@pytest.mark.parametrize("text", ["512", "512M", "512mib", "20s", 512])
def test_what_is_no_size_with_a_unit_is_refused_with_the_units(text: object) -> None:
    with pytest.raises(ValueError, match="units are B, KiB, MiB, GiB, kB, MB, GB"):
        Size.parse(text)


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "min", "h", "d"]))
def test_a_time_survives_being_written(count: int, unit: str) -> None:
    time = Seconds.parse(f"{count}{unit}")
    assert math.isclose(Seconds.parse(time.written()), time, rel_tol=1e-9)


@given(st.integers(0, 10**12 - 1))
def test_a_size_survives_being_written(size: int) -> None:
    assert Size.parse(Size(size).written()) == size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Seconds(0.5), "500ms"),
        (Seconds(90), "90s"),
        (Seconds(7200), "2h"),
        (Seconds(0), "0s"),
        (Size(1 << 29), "512MiB"),
    ],
)
def test_the_largest_unit_without_a_fraction_is_written(value: Seconds | Size, text: str) -> None:
    assert value.written() == text
