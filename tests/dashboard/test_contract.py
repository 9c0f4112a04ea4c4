"""The TypeScript of the contract compiles, takes the golden payloads, and reads topics as Python does."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas.types import key

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboard"
SEARCH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))

Compile = Callable[[str], str]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program of the node wheel beside this Python, else of this machine."""
    program, *arguments = map(str, command)
    found = shutil.which(program, path=SEARCH)
    if found is None:
        pytest.skip(f"{program} is not installed; the development dependencies bring it")
    return subprocess.run(
        [found, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": SEARCH},
    )  # fmt: skip


@pytest.fixture(scope="module")
def tsc(builder: Any) -> Path:
    """TypeScript as the lock file pins it, installed once."""
    modules: Path = builder.install()
    return modules / "typescript" / "bin" / "tsc"


@pytest.fixture
def compiled(tsc: Path, tmp_path: Path) -> Compile:
    """Compile a file that stands beside ``contract.ts``; what the compiler says, nothing when it is content."""

    def compile_(text: str) -> str:
        shutil.copy(DASHBOARD / "src" / "contract.ts", tmp_path)
        (tmp_path / "check.ts").write_text(f'import * as c from "./contract.js";\n{text}')
        (tmp_path / "package.json").write_text('{"type": "module"}')
        options = json.loads((DASHBOARD / "tsconfig.json").read_text())["compilerOptions"]
        own = {"noEmit": False, "outDir": "out", "noEmitOnError": True}
        (tmp_path / "tsconfig.json").write_text(
            json.dumps({"compilerOptions": {**options, **own}, "include": ["*.ts"]})
        )
        return run("node", tsc, cwd=tmp_path).stdout

    return compile_


def golden(kind: type) -> str:
    return (ROOT / "tests" / "golden" / f"{kind.__name__.lower()}.json").read_text()


def test_the_dashboard_compiles(tsc: Path) -> None:
    done = run("node", tsc, cwd=DASHBOARD)
    assert done.returncode == 0, done.stdout


def test_every_golden_payload_has_its_type(compiled: Compile) -> None:
    lines = [
        f'const {name}: c.Payloads["{name}"] = {golden(kind)};\nconst {name}_: c.{kind.__name__} = {name};'
        for name, kind in ((key(topic), kind) for topic, kind in PAYLOADS.items())
    ]
    assert not compiled("\n".join(lines))


EVENT = json.loads(golden(PAYLOADS[t.EventTopic]))


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        pytest.param("seq", '"17"', "'string' is not assignable to type 'number'", id="a word for a number"),
        pytest.param("type", '"begin"', "EventType", id="an unknown step"),
        pytest.param("box", "[0, 0, 1]", "[number, number, number]", id="a box of three"),
        pytest.param("ended_at", "undefined", "undefined", id="nothing for null"),
        pytest.param("crossed", '[{ line: "gate", direction: "up" }]', '"up"', id="an unknown direction"),
        pytest.param("mood", '"good"', "'mood' does not exist", id="an unknown field"),
        pytest.param("model", '{ name: "belt" }', "missing", id="a part of a part"),
    ],
)
def test_what_is_no_event_does_not_compile(field: str, value: str, complaint: str, compiled: Compile) -> None:
    said = compiled(f"const event: c.Event = {{ ...{json.dumps(EVENT)} as const, {field}: {value} }};")
    assert complaint in said, said


def test_a_reader_that_tells_topics_apart_knows_their_levels(compiled: Compile) -> None:
    told = "declare const topic: c.Topic;\n"
    assert not compiled(f'{told}if (topic.kind === "snapshot") console.log(topic.camera.length, topic.event.length);')
    said = compiled(f'{told}if (topic.kind === "info") console.log(topic.camera);')
    assert "'camera' does not exist on type 'InfoTopic'" in said


def test_topics_are_built_and_parsed_as_python_does(compiled: Compile, tmp_path: Path) -> None:
    good = [kind(*(f"{spec.name}-{n}" for spec in fields(kind))) for n, kind in enumerate(t.TOPICS)]
    bad = [
        "", "tinysight", "tinysight/v2/s/d/status", "tinysight/v1/s/d", "tinysight/v1/s/d/status/",
        "/tinysight/v1/s/d/info",
        "tinysight/v1/S/d/status", "tinysight/v1/s/d/status\n", "tinysight/v1/s\n/d/status", "tinysight/v1//d/status",
        "tinysight/v1/s/d/camera/+/event", "tinysight/v1/s/d/camera/c/snapshot", f"tinysight/v1/s/{'a' * 64}/status",
        "tinysight/v1/s/d/{name}", "tinysight/v1/s/d/cmd/é", "tinysight/v1/s/-d/status", "tinysight/v1/s/d/__proto__",
    ]  # fmt: skip
    for text in bad:
        with pytest.raises(ContractError):
            t.parse(text)
    texts = json.dumps([*map(str, good), *bad])
    levels = json.dumps({key(type(topic)): asdict(topic) for topic in good})
    assert not compiled(f"""
const levels = {levels};
const kinds = Object.keys(levels) as c.Kind[];
const built = kinds.map((kind) => (c.topicOf[kind] as (at: object) => string)(levels[kind]));
let refused = "";
try {{ c.topicOf.status({{ site: "a/b", device: "d" }}); }} catch (error) {{ refused = String(error); }}
console.log(JSON.stringify({{ built, refused, parsed: {texts}.map((text) => c.parse(text)), rules: c.RULES }}));
""")
    done = run("node", "out/check.js", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["built"] == [str(topic) for topic in good]
    assert told["refused"] == 'RangeError: site "a/b" is not a valid id'
    assert told["parsed"] == [*({"kind": key(type(topic)), **asdict(topic)} for topic in good), *(None for _ in bad)]
    assert told["rules"] == {
        key(kind): {"tail": kind.TAIL, "retain": kind.RETAIN, "qos": kind.QOS, "toDevice": kind.TO_DEVICE}
        for kind in t.TOPICS
    }
