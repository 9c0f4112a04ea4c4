"""Run the demo and write what it measured into README.md, with the date and the machine.

``python benchmarks/readme.py``: about four minutes. Replaces what stands between markers; prints one JSON line last.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import where

README = Path(__file__).parents[1] / "README.md"


def run_demo() -> tuple[dict[str, float], str]:
    """The demo's figures, and its event."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tinysight_deploy", "demo", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    *_, event, figures = done.stdout.splitlines()
    return json.loads(figures), event


def put(text: str, name: str, block: str) -> str:
    """The text with what stands between a pair of markers replaced."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Run, write."""
    figures, event = run_demo()
    place = f"{where()}, `python benchmarks/readme.py`"
    shown = "\n".join(f"    {name:16}{value:g}" for name, value in figures.items())
    rows = [
        ("AP50 (IoU 0.5) on 500 held-out pictures", f"{figures['float_ap50']:.3f}", f"{figures['int8_ap50']:.3f}"),
        ("AP50-95", f"{figures['float_ap50_95']:.3f}", f"{figures['int8_ap50_95']:.3f}"),
        ("one inference, one thread, ms", f"{figures['float_ms']:.2f}", f"{figures['int8_ms']:.2f}"),
    ]
    table = "\n".join(f"| {name} | {float32} | {int8} |" for name, float32, int8 in rows)
    text = README.read_text(encoding="utf-8")
    text = put(text, "demo", f"{shown}\n\n({place})")
    text = put(text, "event", f"```json\n{json.dumps(json.loads(event), indent=1)}\n```")
    head = "The demo's detector, 128x96 pixels, 10 classes.\n\n| | float32 | int8 |\n|---|---|---|"
    text = put(text, "figures", f"{head}\n{table}\n\n{place}.")
    README.write_text(text, encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
