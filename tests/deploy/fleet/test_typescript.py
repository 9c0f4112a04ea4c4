"""The TypeScript of the fleet's API is what the server's table says, and fits its OpenAPI document."""

import re
from pathlib import Path

from tinysight_deploy.fleet.server.api import SPECS
from tinysight_deploy.fleet.server.openapi import document
from tinysight_deploy.fleet.server.typescript import OUT, typescript

WRITTEN = Path(__file__).parents[3] / OUT


def interfaces(text: str) -> dict[str, set[str]]:
    """By name the fields of each interface; one that may be missing ends in a question mark."""
    found = re.findall(r"^export interface (\w+) {\n(.*?)^}", text, re.MULTILINE | re.DOTALL)
    return {name: set(re.findall(r"^  (\w+\??): ", body, re.MULTILINE)) for name, body in found}


def test_what_is_committed_is_what_is_generated() -> None:
    assert WRITTEN.read_text("utf-8") == typescript(), "run `make schemas`"


def test_each_type_has_the_fields_of_the_document() -> None:
    schemas = document(SPECS)["components"]["schemas"]
    told = interfaces(typescript())
    bodies = {spec.body.__name__ for spec in SPECS if spec.body is not None}
    for name in (told.keys() & schemas.keys()) - {"Told"}:
        fields = schemas[name]["properties"]
        missing = fields.keys() - set(schemas[name].get("required", ())) if name in bodies else set()
        assert told[name] == {f"{field}?" if field in missing else field for field in fields}, name
    assert {each.rstrip("?") for each in told["Told"]} == schemas["Told"]["properties"].keys()
    assert "revision?" in told["Told"]
    sent = schemas["Policy"]
    assert {each for each in told["PolicyGiven"] if not each.endswith("?")} == set(sent["required"])


def test_each_route_has_its_types_and_role() -> None:
    text = typescript()
    for spec in SPECS:
        route = f'"{spec.method} {spec.path}"'
        lines = [f"  {route}: {'null' if spec.role is None else f'{chr(34)}{spec.role}{chr(34)}'},\n"]
        lines += [f"  {route}: {kind.__name__};\n" for kind in (spec.answer, spec.body) if kind is not None]
        assert all(line in text for line in lines), spec
