"""The reference and the JSON Schema of ``agent.toml``, made of the types and their docstrings.

In: the types of `types`.  Out: ``docs/agent.md`` and ``docs/agent.schema.json``, compared by a test with what is
committed. The schema is for editors; what a file may hold is decided by `file` alone.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from tinysight_contract.schemas.types import meanings
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.words import Kind, bare, parts, words, written
from tinysight_edge.units import Seconds, Size

__all__ = ["reference", "schema"]

HEAD: Final = """\
# agent.toml: what an agent is told to do

```console
$ tinysight config init              # a file to start from
$ tinysight config check agent.toml  # all that is wrong with it, each with its line; status 2 then
$ tinysight config show agent.toml   # every value that holds, defaults included
$ tinysight config schema            # a JSON Schema for editors
$ tinysight run --config agent.toml
```

A full file is [examples/agent.toml](../examples/agent.toml). Unknown keys are refused. Times (`ms`, `s`, `min`, `h`,
`d`) and sizes (`B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`) carry their unit. Relative paths start from the file's
folder. Points are `[x, y]` in 0..1 of the frame as the agent sees it: rotated, flipped and cropped; those of `privacy`
as well.

A password stands in a file of its own or in the environment, never in this file or in an address. A file that everybody
may read is warned of. It is read at each connect and at each opening of a camera, so a password may change while the
agent runs.

A running agent takes changes of the file within three seconds. A wrong file is refused and the one before goes on. A
good one runs on trial for the time of `trial`: if a camera that delivered before, or that is new or reached in another
way, delivers no pictures at its end, the change is taken back and not tried again until the file changes. A file that
ends the agent twice during its trial is taken back as well. `site`, `device`, `state`, `broker`, `model` and
`health.prometheus_port` keep their old values until the agent is started again. At a start the last good file runs
when this one is wrong or missing; it is kept in `$STATE_DIRECTORY/config` (systemd sets it), else below
`~/.local/state/tinysight/config`.

A change that names a label which the model does not know is refused, as `tinysight config check` refuses it. At a start
it is not: another model may have been installed since the file was written, and a device must not go dark for a name.
Then nothing counts for that label, in a zone, at a line or for a rule, what else they name goes on, and the alert
`config-labels` says which it is until the file or the model is mended. An unknown label is never taken for no filter. A
camera that asks for what the model cannot do at all (`tiles` with a classifier) is told as `camera.failed` beside those
that go on.

With a `store` another model may take over while the agent runs: [updates.md](updates.md) says how, `[update]` how
strictly. Time in which no camera gives pictures is no part of its trial. With the same task and labels all that is
followed goes on; else it ends as `model changed` and begins anew, and lines go on counting.

The tables below are made of the types in [`config/types.py`](../edge/tinysight_edge/config/types.py);
`pytest --regen tests/edge/test_config_docs.py` writes them.
"""


def _tables(kind: type[Struct], key: str) -> Iterator[tuple[str, type[Struct]]]:
    """A type and those that lie in it, with the header under which they stand in the file."""
    yield key, kind
    for field in fields(kind):
        inner, _ = bare(field.type)
        below = f"{key}.{field.name}".removeprefix(".")
        origin, arguments = parts(inner)
        if origin is dict:
            yield from _tables(arguments[1], f"{below}.ID")
        elif isinstance(inner, type) and issubclass(inner, Struct):
            yield from _tables(inner, below)


def _default(field: FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is NODEFAULT or field.default is None or isinstance(field.default, Struct):
        return ""
    return f"`{written(field.default)}`"


def reference() -> str:
    """``docs/agent.md``."""
    made = [HEAD]
    for key, kind in _tables(AgentConfig, ""):
        line, told = meanings(kind.__doc__)
        rows = [
            f"| `{field.name}` | {words(field.type)} | {_default(field)} | {told[field.name]} |\n"
            for field in fields(kind)
        ]
        name = f"`[{key}]`" if key else "Top of the file"
        made.append(f"\n## {name}\n\n{line}\n\n| key | value | default | meaning |\n|---|---|---|---|\n{''.join(rows)}")
    return "".join(made)


def schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(AgentConfig)}


def _schema(kind: Kind) -> dict[str, Any]:
    plain, notes = bare(kind)
    origin, inner = parts(plain)
    lengths = {
        f"{side}{'Properties' if origin is dict else 'Items'}": value
        for note in notes
        for side, value in (("min", note.min_length), ("max", note.max_length))
        if value is not None
    }
    if isinstance(plain, type) and issubclass(plain, Struct):
        return _schema_of_table(plain)
    if origin is dict:
        names = {"propertyNames": _schema(inner[0]), "additionalProperties": _schema(inner[1])}
        return {"type": "object", **names, **lengths}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": _schema(inner[0]), **lengths}
    if origin is tuple:
        items = [_schema(each) for each in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is Literal:
        return {"enum": list(inner)}
    if plain in {Seconds, Size}:
        units = "ms|s|min|h|d" if plain is Seconds else "B|KiB|MiB|GiB|kB|MB|GB"
        return {"type": "string", "pattern": rf"^\d{{1,12}}(\.\d{{1,9}})? ?({units})$"}
    if plain in {str, bool, int, float}:
        return msgspec.json.schema(Annotated[(plain, *notes)] if notes else plain)
    return {"type": "string", "minLength": 1}


def _schema_of_table(kind: type[Struct]) -> dict[str, Any]:
    line, told = meanings(kind.__doc__)
    made: dict[str, Any] = {}
    for field in fields(kind):
        made[field.name] = {**_schema(field.type), "description": told[field.name]}
        if isinstance(field.default, Seconds | Size):
            made[field.name]["default"] = field.default.written()
        elif isinstance(field.default, str | int | float | tuple):
            made[field.name]["default"] = field.default
    required = [field.name for field in fields(kind) if field.required]
    found = {"type": "object", "description": line, "properties": made, "additionalProperties": False}
    return {**found, "required": required} if required else found
