"""Where each key and each item of a TOML text stands, which `tomllib` does not tell.

In: a text that `tomllib` has accepted.  Out: path → line, counted from 1. A path is what leads to a value from the
top: names, and numbers of items. Judges nothing: of a text that is no TOML it says nothing useful.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Path", "lines_of"]

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r'''(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<end>\n)
      | (?P<text>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
      | (?P<mark>[\[\]{},=.])
      | (?P<bare>[^\s\[\]{},=.#"']+)''',
    re.DOTALL | re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def lines_of(toml: str) -> dict[Path, int]:
    """The line of everything that has a name or a number.

    A table that is only named within others' names stands where it is named first.
    """
    return _Scan(toml).found


def _tokens(toml: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(toml):
        yield _Token(match.lastgroup or "", match[0], line)
        line += match[0].count("\n")
    yield _Token("stop", "", line)


class _Scan:
    """Walks over the tokens once; each method begins at the first token of its part and ends behind the last."""

    def __init__(self, toml: str) -> None:
        self.found: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # of tables: how many there are
        self._tokens = list(_tokens(toml))
        self._at = 0
        table: Path = ()
        while self._next().kind != "stop":
            if self._next().text == "[":
                table = self._header()
            else:
                self._assignment(table)

    def _next(self, *, over: tuple[str, ...] = ("space", "end")) -> _Token:
        while self._tokens[self._at].kind in over:
            self._at += 1
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next()
        self._at += token.kind != "stop"
        return token

    def _header(self) -> Path:
        line = self._take().line
        many = self._tokens[self._at].text == "["
        self._at += many
        path: Path = ()
        names = self._names()
        for number, name in enumerate(names):
            path += (name,)
            self.found.setdefault(path, line)
            last = number == len(names) - 1
            if many and last:
                self._arrays[path] = self._arrays.get(path, 0) + 1
            if path in self._arrays:
                path += (self._arrays[path] - 1,)
                self.found.setdefault(path, line)
        for _ in range(1 + many):  # what closes it
            self._take()
        return path

    def _names(self) -> list[str]:
        names = [self._name()]
        while self._next(over=("space",)).text == ".":
            self._at += 1
            names.append(self._name())
        return names

    def _name(self) -> str:
        text = self._take().text
        if text[:1] == '"' and "\\" in text:
            return re.sub(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", _unescaped, text[1:-1])
        return text[1:-1] if text[:1] in {'"', "'"} else text

    def _assignment(self, table: Path) -> None:
        line, path = self._next().line, table
        for name in self._names():
            path += (name,)
            self.found.setdefault(path, line)
        self._take()  # what stands between a name and its value
        self._value(path)

    def _value(self, path: Path) -> None:
        token = self._take()
        if token.text in {"[", "{"}:
            self._items(path, table=token.text == "{")
        elif token.kind != "text":  # a number, a time, true: all up to what must follow a value
            while (token := self._next(over=("space",))).kind == "bare" or token.text == ".":
                self._at += 1

    def _items(self, path: Path, *, table: bool) -> None:
        number = 0
        while (token := self._next()).text not in {"]", "}"} and token.kind != "stop":
            if token.text == ",":
                self._at += 1
                number += 1
            elif table:
                self._assignment(path)
            else:
                self.found[(*path, number)] = token.line
                self._value((*path, number))
        self._take()


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "uU":
        return chr(int(code[1:], 16))
    return {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}.get(code, code)
