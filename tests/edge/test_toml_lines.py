"""Each key and item has a line, whatever way of TOML it is written in."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.config.toml_lines import Path, lines_of

WRITTEN = '''\
# a = 1
a = 1
[table]   # [no]
"quoted.key" = "# text = 3"
'literal key' = """
[not.a.table]
x = 1 """""
b.c.d = [1, 2,  # one
  # two
  {x = 1, y = [3]}, [
    4,
  ],
]
[table.below."esc\\u0061ped"]
when = 1979-05-27 07:32:00.5Z
[[many]]
n = 1
[[many]]
n = 2
[many.sub]
k = \'\'\'
x = 9\'\'\'
float = 1.5e-3
[ spaced . out ]
inline = { a = 1, "b c".d = true }
'''
LINES: dict[Path, int] = {
    ("a",): 2, ("table",): 3, ("table", "quoted.key"): 4, ("table", "literal key"): 5, ("table", "b"): 8,
    ("table", "b", "c", "d", 0): 8, ("table", "b", "c", "d", 1): 8, ("table", "b", "c", "d", 2, "x"): 10,
    ("table", "b", "c", "d", 2, "y", 0): 10, ("table", "b", "c", "d", 3, 0): 11,
    ("table", "below", "escaped", "when"): 15, ("many",): 16, ("many", 0, "n"): 17, ("many", 1): 18,
    ("many", 1, "n"): 19, ("many", 1, "sub", "k"): 21, ("many", 1, "sub", "float"): 23,
    ("spaced", "out", "inline", "a"): 25, ("spaced", "out", "inline", "b c", "d"): 25,
}  # fmt: skip


def paths(value: Any, path: Path = ()) -> set[Path]:
    """All paths of what tomllib has read."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path} | {each for key, inner in items for each in paths(inner, (*path, key))}


@pytest.mark.parametrize(("path", "line"), LINES.items())
def test_a_place_has_its_line(path: Path, line: int) -> None:
    assert lines_of(WRITTEN)[path] == line


def test_what_tomllib_reads_and_what_has_a_line_are_the_same() -> None:
    assert set(lines_of(WRITTEN)) == paths(tomllib.loads(WRITTEN)) - {()}


KEY = st.sampled_from(["a", "b-1", '"x y"', "'l.t'", "3", "true"])
LEAF = st.sampled_from(
    ["1", "-1.5e3", '"[t]"', "'='", "true", "1979-05-27", "inf", '"""\n#\n"""', "'''\n]'''", '"\\""']
)
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: "[\n" + ",# ]\n".join(each) + "]")
        | st.dictionaries(KEY, inner, max_size=3).map(
            lambda each: "{" + ", ".join(f"{k}={v}" for k, v in each.items()) + "}"
        )
    ),
    max_leaves=6,
)
TABLE = st.dictionaries(KEY, VALUE, max_size=3).map(lambda each: "".join(f"{k} = {v} # c\n" for k, v in each.items()))


@given(TABLE, st.dictionaries(KEY.map(lambda key: f"t.{key}"), TABLE, max_size=3), st.lists(TABLE, max_size=3))
def test_every_place_of_a_file_has_a_line_and_a_key_stands_in_its_line(
    top: str, tables: dict[str, str], many: list[str]
) -> None:
    text = (
        top + "".join(f"[{key}]\n{body}" for key, body in tables.items()) + "".join(f"[[m]]\n{body}" for body in many)
    )
    found = lines_of(text)
    assert set(found) == paths(tomllib.loads(text)) - {()}
    rows = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert path[-1] in rows[line - 1]


@given(st.text())
def test_whatever_the_text_it_ends(text: str) -> None:
    lines_of(text)
