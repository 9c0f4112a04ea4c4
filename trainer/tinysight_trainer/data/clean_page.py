"""Findings with their pictures, to be accepted or rejected in a browser.

In: a data set and what was found in it.  Out: ``clean.html``, one self-contained page; it saves the decisions as
``clean.json``, which ``tinysight data apply`` reads. Every text from outside is escaped.
"""

from collections import defaultdict
from typing import Final

import msgspec

from tinysight_converters.page import card, cards, img, note, page, safe
from tinysight_edge.sources import decode_image
from tinysight_trainer.data.checks import KINDS, Finding
from tinysight_trainer.data.clean import Findings
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import Item
from tinysight_trainer.data.sheets import jpeg, whole_tile

__all__ = ["clean_page"]

SHOWN: Final = 150  # of a kind, the surest; the list holds all
TILE_PX: Final = 132
WHITE, BLUE, RED = "#ffffff", "#1f6feb", "#d1242f"

_SCRIPT: Final = """
const held=JSON.parse(document.getElementById('held').textContent),by=new Map(held.findings.map(f=>[f.id,f]));
const show=()=>{const n=held.findings.filter(f=>f.decision==='accept').length,
r=held.findings.filter(f=>f.decision==='reject').length;
document.getElementById('sum').textContent=`${n} accepted, ${r} rejected, ${held.findings.length-n-r} open`};
const set=(id,d)=>{const f=by.get(id);f.decision=d;const e=document.getElementById('f'+id);if(e)e.dataset.decision=d};
document.addEventListener('click',e=>{const b=e.target.closest('button');if(!b)return;
if(b.dataset.id){const now=by.get(b.dataset.id).decision;set(b.dataset.id,now===b.dataset.d?'open':b.dataset.d)}
if(b.dataset.kind)held.findings.filter(f=>f.kind===b.dataset.kind).forEach(f=>set(f.id,b.dataset.d));
if(b.id==='save'){const a=document.createElement('a');
a.href=URL.createObjectURL(new Blob([JSON.stringify(held,null,1)],{type:'application/json'}));
a.download='clean.json';a.click()}show()});
held.findings.forEach(f=>set(f.id,f.decision));show();
"""

_STYLE: Final = """<style>
.bar{position:sticky;top:0;background:Canvas;padding:.6rem 0;border-bottom:1px solid var(--line);z-index:1;
display:flex;gap:.8rem;align-items:center;flex-wrap:wrap}
button{font:inherit;padding:.2rem .7rem;border:1px solid var(--line);border-radius:.4rem;background:var(--soft);
color:inherit;cursor:pointer}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17.5rem,1fr));gap:.7rem}
.f{border:1px solid var(--line);border-radius:.6rem;padding:.6rem;font-size:.85rem;overflow-wrap:anywhere}
.f[data-decision=accept]{border-color:var(--good);box-shadow:0 0 0 1px var(--good)}
.f[data-decision=reject]{opacity:.5}
.f[data-decision=accept] [data-d=accept],.f[data-decision=reject] [data-d=reject]{background:#1f6feb;color:#fff}
.p{display:flex;gap:.4rem;margin-bottom:.4rem}.p img{width:8.2rem;height:8.2rem;object-fit:contain;background:#8883}
h2 button{font-size:.8rem;margin-left:.5rem}
</style>"""


def clean_page(data: Dataset, findings: Findings) -> bytes:
    """The page."""
    items = {item.name: item for item in data.items}
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for each in findings.findings:
        by_kind[each.kind].append(each)
    held = msgspec.json.encode(findings).decode().replace("<", "\\u003c")
    body = [
        _STYLE,
        f"<h1>What to look at in {safe(data.root.name)}</h1>",
        note(
            f"{len(data.items)} pictures, {len(findings.findings)} findings. Accept what is right, save, then run "
            f"tinysight data apply {data.root} --findings clean.json. Nothing is changed before that."
        ),
        cards(card(str(len(many)), kind, KINDS[kind]) for kind, many in by_kind.items()),
        "<div class=bar><button id=save>Save clean.json</button><span id=sum></span></div>",
    ]
    for kind, many in by_kind.items():
        more = f"; the surest {SHOWN} are shown" if len(many) > SHOWN else ""
        both = "".join(
            f"<button data-kind={safe(kind)} data-d={d}>{word} all</button>"
            for d, word in (("accept", "accept"), ("reject", "reject"))
        )
        body.append(f"<h2>{safe(kind)} ({len(many)}{more}) {both}</h2>{note(KINDS[kind])}<div class=grid>")
        body += [_finding(data, items, one) for one in many[:SHOWN]]
        body.append("</div>")
    body.append(f"<script type=application/json id=held>{held}</script>")
    return page(f"{data.root.name}: findings", body, script=_SCRIPT)


def _finding(data: Dataset, items: dict[str, Item], one: Finding) -> str:
    tiles = "".join(_tile(data, items[name], one if at == 0 else None) for at, name in enumerate(one.pictures[:2]))
    names = "<br>".join(safe(name) for name in one.pictures[:2])
    acts = {
        "remove-picture": "take out the picture",
        "remove-box": "take out the box",
        "set-box": "move the box",
        "add-box": f"add the box as {one.remedy.label!r}",
        "set-label": f"call it {one.remedy.label!r}",
    }
    buttons = "".join(
        f"<button data-id={one.id} data-d={d}>{word}</button>"
        for d, word in (("accept", "accept"), ("reject", "reject"))
    )
    return (
        f"<div class=f id=f{one.id} data-decision=open><div class=p>{tiles}</div><b>{safe(one.why)}</b><br>"
        f"{names}<br><i>{safe(acts[one.remedy.act])}</i> ({one.strength:.2f})<br>{buttons}</div>"
    )


def _tile(data: Dataset, item: Item, one: Finding | None) -> str:
    """The picture with its boxes; the one that is meant is red, the one that is offered blue."""
    try:
        image = decode_image(data.path(item).read_bytes())
    except OSError:
        image = None
    if image is None:
        return "<span class=note>cannot be shown</span>"
    boxes = [
        (shown.box, RED if one is not None and one.remedy.index == index else WHITE)
        for index, shown in enumerate(item.shown)
        if shown.box is not None
    ]
    if one is not None and one.remedy.box is not None:
        boxes.append((one.remedy.box, BLUE))
    width = max(1, round(TILE_PX * image.shape[1] / max(image.shape[:2])))
    return img(jpeg(whole_tile(image, boxes, width)), item.name)
