"""docs/health.md says what the tables in the code say."""

import re
from collections.abc import Callable
from pathlib import Path

from tinysight_edge.health.prometheus import METRICS
from tinysight_edge.health.verdict import RULES

PAGE = Path(__file__).parents[3] / "docs/health.md"


def codes() -> list[str]:
    rows = [f"| `{code}` | {rule.state} | {rule.when} | {rule.mend} |" for code, rule in RULES.items()]
    return ["| code | state | when | mend |", "|---|---|---|---|", *rows]


def metrics() -> list[str]:
    rows = [f"| `{name}` | {kind} | {about} |" for name, (kind, about) in METRICS.items()]
    return ["| name | type | what |", "|---|---|---|", *rows]


def test_the_page_has_the_tables_of_the_code(golden: Callable[[str, bytes], None]) -> None:
    text = PAGE.read_text()
    for name, rows in (("codes", codes()), ("metrics", metrics())):
        table = "\n".join(rows)
        text, found = re.subn(
            rf"(<!-- {name}: [^\n]* -->\n).*?<!-- end -->", rf"\g<1>{table}\n<!-- end -->", text, flags=re.S
        )
        assert found == 1
    golden("../../docs/health.md", text.encode())
