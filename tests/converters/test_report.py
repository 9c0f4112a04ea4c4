"""The page for people: whole, self-contained, and safe against hostile labels."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.manifest import Reference
from tinysight_contract.metrics import BINS
from tinysight_converters.bench import Bench
from tinysight_converters.calibration import Calibration
from tinysight_converters.ladder import Step
from tinysight_converters.lint import findings_of
from tinysight_converters.report import Facts
from tinysight_converters.report_page import report_html
from tinysight_converters.run import load_examples, load_run
from tinysight_converters.tflite import LayerError


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


@pytest.mark.parametrize(("task", "pictures"), [("detector", 3), ("classifier", 2)])
@pytest.mark.parametrize("inside", [False, True], ids=["beside the bundle", "in the bundle, without pictures"])
def test_the_page_shows_its_pictures_and_loads_nothing(task: str, pictures: int, inside: bool, world: Path) -> None:
    page = (world / f"{task}.report.html").read_text(encoding="utf-8")
    if inside:
        page, pictures = Bundle.open(world / f"{task}.bundle").read("report.html").decode(), 0
    tags, reference = Tags(), Bundle.open(world / f"{task}.bundle").manifest.reference
    tags.feed(page)
    assert reference is not None
    assert len(tags.sources) == pictures
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in tags.sources)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "script" not in tags.names
    assert "<h2>How sure it is</h2>" in page
    assert tags.names.count("rect") == sum(map(bool, reference.scores))
    assert 'name=viewport content="width=device-width' in page


def test_a_label_is_text_and_never_markup(world: Path) -> None:
    bundle, run, examples = (
        Bundle.open(world / "classifier.bundle"),
        load_run(world / "classifier"),
        load_examples(world / "classifier"),
    )
    evil = "<script>alert(1)</script>"
    reference = Reference(scores=[1] * BINS, labels={evil: 20})
    manifest = replace(bundle.manifest, name=evil, labels=[evil, *bundle.manifest.labels[1:]], reference=reference)
    bench = Bench(run, examples, manifest, bundle.read("float32.tflite"))
    facts = Facts(
        manifest=manifest,
        run=replace(run, config={evil: evil}),
        examples=examples,
        reference=bench.reference,
        variants=[bench.try_out("int8", bundle.read("int8.tflite"), how=evil)],
        layers=[LayerError(op=evil, layer=evil, tensor=evil, rms_steps=0.3, noise=0.1, scale=1.0)],
        findings=findings_of([("swish", evil)]),
        ladder=[Step(evil, None, 0.0, evil)],
        calibration=Calibration(np.zeros((1, 32, 32, 3), np.uint8), [evil], evil),
        old_runtime=evil,
    )
    page = report_html(facts, pictures=True).decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10
