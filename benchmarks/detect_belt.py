"""Train the default detector on the belt, quantize it, and measure both on 500 held-out scenes.

    python benchmarks/detect_belt.py        about 3 minutes on 2 cores

The same commands that a user types. Prints one JSON line last.
"""

import argparse
import json
import tempfile
from pathlib import Path

from steps import tinysight, where


def main() -> None:
    """Draw, train, convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    seed = str(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = tinysight("data", "synth", "belt", "--out", "data", "--seed", seed, cwd=folder)
        trained = tinysight("train", "data", "--out", "run", "--seed", seed, cwd=folder)
        proof = tinysight("convert", "run", "--out", "belt.bundle", cwd=folder)
    figures = {name: round(proof[name], 4) for name in ("float_ap50", "float_ap50_95", "int8_ap50", "int8_ap50_95")}
    figures |= {"train_s": trained["train_s"], "params": int(trained["params"]), "test_images": drawn["test"]}
    print(json.dumps({**figures, "where": where()}))


if __name__ == "__main__":
    main()
