"""Pages for people: self-contained, readable on a phone, nothing loaded from anywhere.

In: texts, tables, pictures' bytes.  Out: HTML. Every text from outside is escaped here and nowhere else.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["card", "cards", "image", "note", "page", "safe", "table"]

STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--good:#1a7f37;--bad:#d1242f}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1rem 0}
.card{border:1px solid var(--line);border-radius:.6rem;padding:.6rem .8rem}.card b{display:block;font-size:1.35rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}img{max-width:100%;height:auto;border-radius:.4rem;background:#fff}
.wrap td{white-space:normal;text-align:left;vertical-align:top}
code{font-size:.85em;overflow-wrap:anywhere;background:var(--soft);padding:.1rem .3rem;border-radius:.2rem}
.note{opacity:.75;font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
"""


def page(title: str, body: Iterable[str], *, script: str = "") -> bytes:
    """A whole page of parts that are HTML already. ``script`` is ours, never from outside."""
    run = f"<script>{script}</script>" if script else ""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}{run}</body></html>\n"
    ).encode()


def safe(text: Any) -> str:  # noqa: ANN401 -- anything that has a text
    """A text that means nothing to a browser."""
    return html.escape(str(text))


def note(text: str) -> str:
    """A paragraph of small print."""
    return f"<p class=note>{safe(text)}</p>"


def card(big: str, small: str, below: str = "", *, mood: str = "") -> str:
    """A figure to be seen first; ``mood`` is good, bad or nothing."""
    return f"<div class=card><b>{safe(big)}</b>{safe(small)}<br><span class='{safe(mood)}'>{safe(below)}</span></div>"


def cards(made: Iterable[str]) -> str:
    """Several of them."""
    return f"<div class=cards>{''.join(made)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; the first column is text, the others are figures."""
    top = "".join(f"<th>{safe(cell)}" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{safe(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{top}{lines}</table></div>"


def image(raw: bytes, alt: str) -> str:
    """A JPEG or PNG within the page."""
    kind = "jpeg" if raw.startswith(b"\xff\xd8") else "png"
    return f'<p><img alt="{safe(alt)}" src="data:image/{kind};base64,{base64.b64encode(raw).decode()}"></p>'
