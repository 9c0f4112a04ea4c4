"""Check the example dashboard with the types that Grafana publishes (npm: ``@grafana/schema``, Apache-2.0).

Not part of the tests, which need no network; ``examples/README.md`` says when it was run::

    python tests/edge/neighbours/check_grafana_types.py 11.5.2 13.2.3

Node.js and npm must be on the path. What is checked: the dashboard, its variables and panels, and of each panel the
options and the fields of its kind; a key that Grafana does not know is an error, too. Ends with tsc's status.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana" / "dashboard.json"
RAW = "@grafana/schema/dist/esm/raw"
KINDS = {"stat": "Stat", "timeseries": "TimeSeries", "table": "Table"}
HEAD = """\
import type { Dashboard, Panel, VariableModel } from "@grafana/schema";
// In JSON an enum is its text, and what a panel leaves out Grafana fills in.
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
    : T extends (infer U)[] ? Plain<U>[] : { [K in keyof T]: Plain<T[K]> };
type Part<T> = T extends (infer U)[] ? Part<U>[] : T extends object ? { [K in keyof T]?: Part<T[K]> } : T;
"""


def source(dashboard: dict[str, Any]) -> str:
    """TypeScript in which each part of the dashboard stands with the type that it must satisfy."""
    lines = [HEAD]
    for kind in sorted({panel["type"] for panel in dashboard["panels"]}):
        name, path = KINDS[kind], f"{RAW}/composable/{kind}/panelcfg/x/{KINDS[kind]}PanelCfg_types.gen"
        lines.append(f'import type * as {name} from "{path}";')

    def must(part: Any, type_: str) -> None:
        lines.append(f"({json.dumps(part)}) satisfies {type_};")

    panels, variables = dashboard["panels"], dashboard["templating"]["list"]
    must({**dashboard, "panels": [], "templating": {"list": []}}, "Plain<Dashboard>")
    for variable in variables:
        must(variable, "Part<Plain<VariableModel>> & { definition?: string }")  # the page shows it, the types lack it
    for panel in panels:
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        must(panel["options"], f"Part<Plain<{KINDS[panel['type']]}.Options>>")
        if custom:
            must(custom, f"Part<Plain<{KINDS[panel['type']]}.FieldConfig>>")
        must({**panel, "options": {}}, "Plain<Panel>")
    return "\n".join(lines)


def main(*versions: str) -> int:
    """Check with each version; 0 when all agree."""
    failed = 0
    for version in versions:
        with tempfile.TemporaryDirectory() as name:
            text = source(json.loads(DASHBOARD.read_bytes()))
            (Path(name) / "dashboard.ts").write_text(text)
            (Path(name) / "package.json").write_text('{"private": true, "type": "module"}')
            get = ["npm", "install", "--silent", "--ignore-scripts", f"@grafana/schema@{version}", "typescript@5.9"]
            subprocess.run(get, cwd=name, check=True)
            check = ["npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext"]
            check += ["--moduleResolution", "bundler", "--target", "es2022", "dashboard.ts"]
            done = subprocess.run(check, cwd=name, check=False)
            failed |= done.returncode
            sys.stdout.write(f"@grafana/schema {version}: {'wrong' if done.returncode else 'as it should be'}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
