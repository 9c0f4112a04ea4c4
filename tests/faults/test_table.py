"""docs/faults.md names the faults that are tried, and what holds by default."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_page_has_a_line_for_each_fault(faults: dict[str, str], request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--regen"):
        return  # it is written after the last test
    assert {row[0]: row[2] for row in rows()} == faults, "run pytest tests/faults --regen"
    assert all(len(row) == 5 and row[4] for row in rows())


def test_each_fault_is_tried_by_a_test(faults: dict[str, str]) -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    assert [fault for fault in faults if not re.search(f'"{re.escape(fault)}"', texts)] == []
