"""What is generated from the contract is committed, whole, and valid by other people's rules."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas import load
from tinysight_contract.schemas.__main__ import generate
from tinysight_contract.schemas.page import page
from tinysight_contract.schemas.types import components, key

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"
NAMES = [kind.__name__.lower() for kind in PAYLOADS.values()]


@pytest.fixture(scope="module")
def asyncapi() -> Any:
    return json.loads((ROOT / "docs" / "asyncapi.json").read_bytes())


@pytest.fixture(scope="module")
def official() -> Any:
    """AsyncAPI's own schema; ``data/README.md`` says where it is from."""
    rules = json.loads(gzip.decompress((DATA / "asyncapi-3.0.0.schema.json.gz").read_bytes()))
    return jsonschema.Draft7Validator(rules)


def test_what_is_committed_is_what_the_types_say() -> None:
    drifted = [str(path.relative_to(ROOT)) for path, content in generate().items() if path.read_bytes() != content]
    assert drifted == [], "run `make schemas`"


def test_an_installed_package_writes_nothing_outside_of_itself(tmp_path: Path) -> None:
    here = tmp_path / "python3" / "site-packages" / "tinysight_contract" / "schemas"
    made = generate(here)
    assert {path.parent for path in made} == {here}
    assert here / "event.json" in made


def test_every_field_of_every_payload_says_what_it_means() -> None:
    silent = [
        f"{kind}.{field}"
        for kind, schema in components(*PAYLOADS.values()).items()
        for field, inner in schema.get("properties", {}).items()
        if "description" not in inner or inner["description"] in {"", "UTC, ISO 8601"}
    ]
    assert silent == [], "say it in the type's docstring, under Attributes"


@pytest.mark.parametrize("name", [*NAMES, "manifest"])
def test_each_schema_is_one_and_knows_its_kind(name: str) -> None:
    schema = load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$ref"].lower() == f"#/$defs/{name}"


def test_the_reference_has_a_row_for_every_topic_and_every_field() -> None:
    text = (ROOT / "docs" / "mqtt.md").read_text()
    for topic in t.TOPICS:
        assert f"| `{topic.TAIL.replace('{camera}', '<cam>').replace('{', '<').replace('}', '>')}` |" in text
    for kind, schema in components(*PAYLOADS.values()).items():
        if "properties" in schema:
            table = re.search(rf"^###+ {kind}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
            assert table is not None, kind
            assert re.findall(r"^\| `(\w+)` \|", table[1], re.MULTILINE) == list(schema["properties"])


def test_the_links_of_the_reference_lead_somewhere() -> None:
    text = (ROOT / "docs" / "mqtt.md").read_text()
    places = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, place = link.partition("#")
        assert not file or (ROOT / "docs" / file).exists(), link
        assert file or place in places, link


def test_prose_around_the_tables_is_kept_and_a_lost_marker_is_told() -> None:
    text = (ROOT / "docs" / "mqtt.md").read_text()
    assert page(text.replace("| `status` |", "| `stale` |")) == text
    assert "Hand-written." in page(f"{text}\nHand-written.\n")
    with pytest.raises(ContractError, match="has no place for its payloads"):
        page(text.replace("<!-- end of payloads -->", ""))


def test_the_asyncapi_document_is_valid_by_asyncapis_own_schema(asyncapi: Any, official: Any) -> None:
    assert [error.message for error in official.iter_errors(asyncapi)] == []


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("operations/event/action", "publish"), ("operations/event/bindings/mqtt/qos", 3),
        ("channels/event/topic", "x"), ("components/parameters/site/pattern", "x"),
        ("components/schemas/Event/properties/seq/minimum", "one"),
    ],
)  # fmt: skip
def test_that_schema_refuses_what_is_wrong(part: str, value: object, asyncapi: Any, official: Any) -> None:
    broken = json.loads(json.dumps(asyncapi))
    *path, last = part.split("/")
    inner = broken
    for name in path:
        inner = inner[name]
    inner[last] = value
    assert not official.is_valid(broken)


def test_the_asyncapi_document_says_of_each_topic_what_the_topic_says(asyncapi: Any) -> None:
    assert set(asyncapi["channels"]) == set(asyncapi["operations"]) == {key(topic) for topic in t.TOPICS}
    for topic in t.TOPICS:
        channel, operation = asyncapi["channels"][key(topic)], asyncapi["operations"][key(topic)]
        levels = re.findall(r"\{(\w+)\}", channel["address"])
        assert str(topic(*levels)) == channel["address"].replace("{", "").replace("}", "")
        assert sorted(levels) == sorted(channel["parameters"])
        assert operation["bindings"]["mqtt"] == {"qos": topic.QOS, "retain": topic.RETAIN, "bindingVersion": "0.2.0"}
        assert operation["action"] == ("receive" if topic in {t.DesiredTopic, t.CommandTopic} else "send")
    assert asyncapi["components"]["messages"]["snapshot"]["contentType"] == "image/jpeg"
    assert asyncapi["operations"]["command"]["reply"]["channel"]["$ref"] == "#/channels/ack"


def test_every_reference_of_the_asyncapi_document_leads_somewhere(asyncapi: Any) -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(asyncapi))):
        inner = asyncapi
        for name in reference.split("/"):
            inner = inner[name]


@pytest.mark.parametrize("kind", PAYLOADS.values(), ids=lambda kind: kind.__name__)
def test_the_asyncapi_examples_fit_its_payloads_and_a_changed_one_does_not(kind: type, asyncapi: Any) -> None:
    message = next(
        each
        for each in asyncapi["components"]["messages"].values()
        if each["payload"].get("$ref", "").endswith(f"/{kind.__name__}")
    )
    (example,) = message["examples"]
    assert example["payload"] == json.loads((ROOT / "tests" / "golden" / f"{kind.__name__.lower()}.json").read_bytes())
    judge = jsonschema.Draft7Validator({**message["payload"], "components": asyncapi["components"]})
    judge.validate(example["payload"])
    for field in asyncapi["components"]["schemas"][kind.__name__]["required"]:
        assert not judge.is_valid({**example["payload"], field: {"not": ["this"]}}), field
    if "box" in example["payload"]:
        assert not judge.is_valid({**example["payload"], "box": [0, 0, 1, 2]}), "tuples hold in draft-07"
