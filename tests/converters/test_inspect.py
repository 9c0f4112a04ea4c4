"""What a bundle holds is told whole, drawn safely, and compared to the last figure."""

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.manifest import Manifest, Reference
from tinysight_converters.graph import read_graph
from tinysight_converters.inspect import difference, inspection, inspection_page

EVIL = "<script>alert(1)</script>"
LAYER = {"op": EVIL, "layer": EVIL, "tensor": EVIL, "rms_steps": 0.3, "noise": 0.5, "scale": 1.0}
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


def changed(bundle: Bundle, files: dict[str, bytes], **fields: Any) -> Bundle:
    """A bundle with other files and other fields of the manifest."""
    held = {name: bundle.read(name) for name in bundle.manifest.files} | files
    manifest = replace(bundle.manifest, files={name: file_ref(data) for name, data in held.items()}, **fields)
    return Bundle.parse(pack_bundle(manifest, held), source="test")


def write(bundle: Bundle, path: Path) -> None:
    path.write_bytes(pack_bundle(bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files}))


def evil_bundle(bundle: Bundle) -> Bundle:
    """Its label, a layer, a tensor and an operator are markup."""
    model = schema.ModelT.InitFromPackedBuf(bundle.read("int8.tflite"), 0)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = EVIL
    model.operatorCodes.append(code)
    graph.operators[3].opcodeIndex = len(model.operatorCodes) - 1
    for tensor in (graph.operators[3].outputs[0], graph.inputs[0], graph.outputs[0]):
        graph.tensors[tensor].name = EVIL
    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    labels = [EVIL, *bundle.manifest.labels[1:]]
    files = {
        "int8.tflite": bytes(builder.Output()),
        "labels.txt": "".join(f"{label}\n" for label in labels).encode(),
        "report.json": json.dumps({"layers": [LAYER]}).encode(),
    }
    return changed(bundle, files, labels=labels)


def test_an_inspection_is_whole(world: Path, tinysight: Any) -> None:
    bundle = Bundle.open(world / "detector.bundle")
    done = tinysight("bundle", "inspect", world / "detector.bundle", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert msgspec.convert(told["manifest"], Manifest) == bundle.manifest
    assert (told["digest"], told["size_bytes"]) == (bundle.digest, bundle.size_bytes)
    report = json.loads(bundle.read("report.json"))
    for proof, whole in zip(told["proof"]["variants"], report["variants"], strict=True):
        assert {"metrics", "threshold", "agreement_with_float", "size_bytes"} < set(proof)
        assert proof == {key: whole[key] for key in proof}
    assert [each["scheme"] for each in told["variants"]] == ["int8", "float32"]
    int8, whole = told["variants"]
    assert int8["float_tensors"] == 0 < whole["float_tensors"]
    assert int8["operators"] == report["variants"][0]["operators"]
    tried = [f"{each.name} {each.version}: runs" for each in bundle.manifest.variants[0].runtimes]
    assert int8["runtimes"] == tried


def test_a_person_sees_the_figures(world: Path, tinysight: Any) -> None:
    done = tinysight("bundle", "inspect", world / "classifier.bundle")
    assert (done.returncode, done.stderr) == (0, "")
    bundle = Bundle.open(world / "classifier.bundle")
    assert bundle.digest in done.stdout
    accuracy = json.loads(bundle.read("report.json"))["variants"][0]["metrics"]["accuracy"]
    assert f"{accuracy:.4f}" in done.stdout


def test_the_page_draws_each_operator_with_its_error_and_loads_nothing(
    world: Path, tinysight: Any, tmp_path: Path
) -> None:
    done = tinysight("bundle", "inspect", world / "detector.bundle", "--html", "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.html").read_text()
    tags = Tags()
    tags.feed(page)
    bundle = Bundle.open(world / "detector.bundle")
    assert tags.names.count("rect") == len(read_graph(bundle.read("int8.tflite")).nodes)
    layers = json.loads(bundle.read("report.json"))["layers"]
    assert page.count(" steps</text>") >= len(layers) // 2 > 3
    assert tags.sources == []
    assert "script" not in tags.names
    assert not re.search(r"https?://|@import|url\(", page)
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    command = [chromium, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in shown.stderr
    assert "CONV_2D" in shown.stdout


def test_a_name_is_text_and_never_markup(belt_bundle: Path) -> None:
    page = inspection_page(evil_bundle(Bundle.open(belt_bundle))).decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5, "input, output, operator, and the layer of two tensors"
    assert "noise 0.5" in page


def test_a_hostile_bundle_does_nothing_to_a_terminal(belt_bundle: Path, tmp_path: Path, tinysight: Any) -> None:
    bundle = Bundle.open(belt_bundle)
    evil = "\x1b[2J[red]"
    labels = [evil, *bundle.manifest.labels[1:]]
    text = "".join(f"{label}\n" for label in labels).encode()
    other = changed(bundle, {"labels.txt": text}, labels=labels)
    write(other, tmp_path / "[red].bundle")
    for command in (("inspect", "[red].bundle"), ("diff", "[red].bundle", belt_bundle)):
        done = tinysight("bundle", *command)
        assert done.stderr == ""
        assert "\x1b" not in done.stdout
        assert "[red]" in done.stdout


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"notes": ' + b"[" * 100_000, id="deep in what is not read"),
        pytest.param(b'{"variants": 5}', id="no list"),
        pytest.param(b'{"variants": [1, {"scheme": 2}]}', id="no objects"),
        pytest.param(b'{"variants": [{"scheme": "int8", "metrics": {"a": "b"}}]}', id="no figure"),
        pytest.param(b'{"reference": [{"a": 1}, 3]}', id="a list of two kinds"),
        pytest.param(b'{"layers": 3}', id="no layers"),
        pytest.param(b'{"layers": [{"x": 1}]}', id="no layer"),
    ],
)
def test_a_report_of_another_form_is_no_proof(report: bytes, belt_bundle: Path) -> None:
    bundle = changed(Bundle.open(belt_bundle), {"report.json": report})
    assert inspection(bundle)["proof"] == {}
    assert b"No errors by layer are known" in inspection_page(bundle)
    assert {what for what, *_ in difference(bundle, Bundle.open(belt_bundle))} == {
        "files.report.json.sha256",
        "files.report.json.size_bytes",
    }


def test_a_report_that_says_less_is_shown_as_it_is(belt_bundle: Path, tmp_path: Path, tinysight: Any) -> None:
    report = b'{"variants": [{"metrics": {"accuracy": 0.5}}, {"scheme": "int8", "metrics": {"recall": 0.25}}]}'
    bundle = changed(Bundle.open(belt_bundle), {"report.json": report})
    write(bundle, tmp_path / "x.bundle")
    done = tinysight("bundle", "inspect", "x.bundle")
    assert (done.returncode, done.stderr) == (0, "")
    assert "recall" in done.stdout
    assert "accuracy" not in done.stdout


def test_outputs_are_shown_with_their_roles_and_a_variant_with_its_own_threshold(
    belt_bundle: Path, tmp_path: Path, tinysight: Any
) -> None:
    bundle = Bundle.open(belt_bundle)
    (variant,) = bundle.manifest.variants
    own = replace(variant, thresholds=replace(bundle.manifest.thresholds, score=0.627))
    write(changed(bundle, {}, variants=[own]), tmp_path / "x.bundle")
    done = tinysight("bundle", "inspect", "x.bundle")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.627" in done.stdout
    for output in variant.outputs:
        assert re.search(rf"int8 +{output.role} +{output.name} +{output.dtype} \[1, 12, 16, ", done.stdout)


def test_a_bundle_without_a_model_is_one_line(sample: Sample, tmp_path: Path, tinysight: Any) -> None:
    (tmp_path / "x.bundle").write_bytes(pack_bundle(*sample()))
    done = tinysight("bundle", "inspect", "x.bundle", "--html", "page.html")
    assert done.returncode == 2
    assert "is no TFLite file" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_a_bundle_does_not_differ_from_itself(belt_bundle: Path, tinysight: Any) -> None:
    for option, said in ((), ""), (("--json",), "[]\n"):
        done = tinysight("bundle", "diff", belt_bundle, belt_bundle, *option)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", said)


def test_two_bundles_differ_in_what_was_changed(belt_bundle: Path, tmp_path: Path, tinysight: Any) -> None:
    bundle = Bundle.open(belt_bundle)
    other = replace(bundle.manifest, version="1.0.1", thresholds=replace(bundle.manifest.thresholds, score=0.75))
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    (tmp_path / "other.bundle").write_bytes(pack_bundle(other, files))
    done = tinysight("bundle", "diff", belt_bundle, "other.bundle", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    score = str(bundle.manifest.thresholds.score)
    assert json.loads(done.stdout) == [
        {"what": "thresholds.score", "one": score, "other": "0.75"},
        {"what": "version", "one": '"1.0.0"', "other": '"1.0.1"'},
    ]
    seen = tinysight("bundle", "diff", belt_bundle, "other.bundle")
    assert seen.returncode == 1
    assert "thresholds.score" in seen.stdout


def test_bundles_that_differ_in_what_is_not_read_are_not_called_equal(
    belt_bundle: Path, tmp_path: Path, tinysight: Any
) -> None:
    bundle = Bundle.open(belt_bundle)
    manifest = json.loads(bundle.manifest.to_json()) | {"of_tomorrow": 1}
    with tarfile.open(belt_bundle) as old, tarfile.open(tmp_path / "other.bundle", "w") as new:
        for member in old:
            data = bundle.read(member.name) if member.name in bundle.manifest.files else json.dumps(manifest).encode()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    other = Bundle.open(tmp_path / "other.bundle")
    assert difference(bundle, other) == [("digest", bundle.digest, other.digest)]
    done = tinysight("bundle", "diff", belt_bundle, "other.bundle")
    assert done.returncode == 1
    assert "Nothing else that is read differs" in done.stdout


def test_differences_deep_in_a_list_and_in_the_proof_are_found(world: Path) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    digits = [f"{label:0>90}" for label in bundle.manifest.labels]
    one, other = (
        changed(bundle, {"labels.txt": "".join(f"{each}\n" for each in labels).encode()}, labels=labels)
        for labels in (digits, [*digits[:-1], "the last"])
    )
    assert "labels" in {what for what, *_ in difference(one, other)}
    report = json.loads(bundle.read("report.json"))
    report["variants"][0]["metrics"]["accuracy"] = 2.0
    better = changed(bundle, {"report.json": json.dumps(report).encode()})
    rows = {what: right for what, _, right in difference(bundle, better)}
    assert rows["proof.variants[int8].metrics.accuracy"] == "2.0"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        pytest.param(None, "unknown, so devices cannot tell whether it drifts", id="a foreign model"),
        pytest.param(Reference(scores=[0] * 20, labels={}), "nothing was found", id="nothing found"),
        pytest.param(
            Reference(scores=[*[0] * 10, 30, *[0] * 7, 20, 40], labels={"0": 60, "1": 30}),
            "90 found, 67 % with a score of 0.90 or more: 0 60, 1 30",
            id="a detector",
        ),
        pytest.param(
            Reference(scores=[*[0] * 19, 28], labels={str(digit): digit for digit in range(1, 8)}),
            "28 found, 100 % with a score of 0.95 or more: 7 7, 6 6, 5 5, 4 4, 3 3, 2 more labels",
            id="more labels than are named",
        ),
    ],
)
def test_what_was_found_in_the_tests_is_told_in_a_line(reference: Reference | None, said: str, world: Path) -> None:
    bundle = changed(Bundle.open(world / "classifier.bundle"), {}, reference=reference)
    assert inspection(bundle)["found"] == said
