"""The page for people: whole, self-contained, and safe against hostile labels."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


@pytest.mark.parametrize(("task", "pictures"), [("detector", 3), ("classifier", 2)])
def test_the_page_shows_its_pictures_and_loads_nothing(task: str, pictures: int, world: Path) -> None:
    page = Bundle.open(world / f"{task}.bundle").read("report.html").decode()
    tags = Tags()
    tags.feed(page)
    assert len(tags.sources) == pictures
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in tags.sources)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "script" not in tags.names
    assert 'name=viewport content="width=device-width' in page


def test_a_label_is_text_and_never_markup(world: Path) -> None:
    from tinysight_converters.proof import Proof, detect_all
    from tinysight_converters.report import report_html
    from tinysight_converters.run import load_examples, load_run
    from tinysight_edge.interpreter import Model

    bundle, run, examples = (
        Bundle.open(world / "classifier.bundle"),
        load_run(world / "classifier"),
        load_examples(world / "classifier"),
    )
    evil = "<script>alert(1)</script>"
    manifest = replace(bundle.manifest, name=evil, labels=[evil, *bundle.manifest.labels[1:]])
    found = detect_all(Model.load(bundle), manifest, examples.test, Path(run.dataset))
    proofs = {s: Proof(s, 1, {"accuracy": 1.0}, 1.0, (1.0, 1.0), found) for s in ("float32", "int8")}
    page = report_html(manifest, replace(run, config={evil: evil}), examples, proofs, {"int8": {evil: 1}}).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
