"""Pages for people: self-contained, readable on a phone, nothing loaded from anywhere.

In: texts, tables, pictures' bytes.  Out: HTML. Every text from outside is escaped here and nowhere else.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = [
    "BAD_NOISE",
    "FAIR_NOISE",
    "bars",
    "card",
    "cards",
    "figure",
    "grid",
    "histogram",
    "image",
    "img",
    "legend",
    "noise_colour",
    "note",
    "page",
    "points",
    "safe",
    "table",
]

FAIR_NOISE: Final = 1e-3  # what int8 adds to a layer, as a share of what it carries
BAD_NOISE: Final = 1e-2
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
.grid{display:grid;gap:1.2rem;align-items:start}figure{margin:0;min-width:0}figure img{display:block;width:100%}
figcaption{font-size:.9rem;margin-top:.3rem;overflow-wrap:anywhere}li{margin:.3rem 0;overflow-wrap:anywhere}
.name{max-width:14rem;overflow:hidden;text-overflow:ellipsis}td.bar{width:60%;min-width:5rem}
.bar div{display:flex;height:.9rem}.bar i{display:block}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:.2em}
@media(prefers-color-scheme:dark){img[src^="data:image/png"]{filter:invert(.92) hue-rotate(180deg)}}
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


def noise_colour(noise: float) -> str:
    """Green, yellow or red, by what int8 adds to a layer."""
    return "#d1242f" if noise > BAD_NOISE else "#bf8700" if noise > FAIR_NOISE else "#1a7f37"


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


def img(raw: bytes, alt: str) -> str:
    """A JPEG or PNG within a line."""
    kind = "jpeg" if raw.startswith(b"\xff\xd8") else "png"
    return f'<img alt="{safe(alt)}" src="data:image/{kind};base64,{base64.b64encode(raw).decode()}">'


def image(raw: bytes, alt: str) -> str:
    """The same on its own."""
    return f"<p>{img(raw, alt)}</p>"


def figure(raw: bytes, alt: str, caption: str, dots: Mapping[str, str] | None = None) -> str:
    """A picture with text below it, and what its colours mean; ``dots`` are names with our own #rrggbb each."""
    below = f"{safe(caption)} {legend(dots)}" if dots else safe(caption)
    return f"<figure>{image(raw, alt)}<figcaption>{below}</figcaption></figure>"


def legend(dots: Mapping[str, str]) -> str:
    """Names with the colour of each."""
    return " ".join(
        f'<span class=dot style="background:{safe(colour)}"></span> {safe(name)}' for name, colour in dots.items()
    )


def grid(made: Iterable[str], *, least_rem: int) -> str:
    """Parts side by side, each at least so wide where the screen allows."""
    return (
        f'<div class=grid style="grid-template-columns:repeat(auto-fill,minmax(min(100%,{least_rem}rem),1fr))">'
        f"{''.join(made)}</div>"
    )


def points(texts: Iterable[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{safe(text)}' for text in texts)}</ul>"


def bars(head: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[str, float]], Sequence[Any]]]) -> str:
    """A table with a bar in each row, which takes any name in any script.

    Args:
        head: of the names, of the bars, and of each figure.
        rows: a name, the parts of its bar (our own #rrggbb, share of the whole width), and the figures.
    """
    top = "".join(f"<th>{safe(cell)}" for cell in head)
    lines = []
    for name, parts, cells in rows:
        bar = "".join(f'<i style="width:{100 * share:.2f}%;background:{safe(colour)}"></i>' for colour, share in parts)
        figures = "".join(f"<td>{safe(cell)}" for cell in cells)
        lines.append(f"<tr><td class=name>{safe(name)}<td class=bar><div>{bar}</div>{figures}")
    return f"<div class=scroll><table><tr>{top}{''.join(lines)}</table></div>"


def histogram(counts: Sequence[int], alt: str) -> str:
    """Columns over 0..1, with the count over each that has any; drawn by the browser, a few hundred bytes."""
    width, most = 30, max(*counts, 1)
    parts = []
    for place, count in enumerate(counts):
        tall = 110 * count / most
        if count:
            x, top = place * width, 130 - tall
            parts.append(
                f'<rect x="{x + 2}" y="{top:.1f}" width="{width - 4}" height="{tall:.1f}" fill="#0969da"/>'
                f'<text x="{x + width // 2}" y="{top - 4:.1f}" font-size="11" text-anchor="middle">{count:d}</text>'
            )
    whole = width * len(counts)
    parts += [
        f'<text x="{whole * tenth // 10}" y="147" font-size="12" text-anchor="{anchor}">{tenth / 10:g}</text>'
        for tenth, anchor in ((0, "start"), (2, "middle"), (4, "middle"), (6, "middle"), (8, "middle"), (10, "end"))
    ]
    return (
        f'<p><svg viewBox="0 0 {whole} 152" width="{whole}" style="max-width:100%;height:auto" fill="currentColor" '
        f'role="img" aria-label="{safe(alt)}"><path d="M0 130.5H{whole}" stroke="currentColor"/>{"".join(parts)}</svg>'
    )
