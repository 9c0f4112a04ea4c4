"""Train a small classifier on all of MNIST, quantize it, and measure both on the 10,000 test pictures.

    python benchmarks/train_mnist.py --data mnist.npz             about 5 minutes on 2 cores
    python benchmarks/train_mnist.py --data mnist.npz --distill   with two teachers, about 40 minutes

The same commands that a user types. Prints one JSON line last.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from steps import tinysight, where

SETTINGS = """
input = "28x28"
color = "GRAY"
batch = 64
learning_rate = 4e-3
ema = 0.995
smoothing = 0.02
zoom = 0.15
stretch = 0.1
shift = 0.08
turn = 12.0
light = 0.0
tint = 0.0
noise = 0.0
"""


def main() -> None:
    """Import, train, convert, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as keras.datasets saves it")
    parser.add_argument("--epochs", type=int, help="9, or 12 with --distill")
    parser.add_argument("--distill", action="store_true", help="have two larger teachers teach the same small model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mnist.toml").write_text(SETTINGS)
        imported = tinysight("data", "import", given.data.resolve(), "--out", "data", cwd=folder)
        epochs = given.epochs or (12 if given.distill else 9)
        command = ["train", "data", "--out", "run", "--config", "mnist.toml", "--epochs", epochs]
        taught = ["--ensemble", "2", "--distill", "--teacher-scale", "1.25"] if given.distill else []
        begun = time.monotonic()
        trained = tinysight(*map(str, command), "--seed", str(given.seed), *taught, cwd=folder)
        total_s = time.monotonic() - begun
        proof = tinysight("convert", "run", "--out", "mnist.bundle", cwd=folder)
        figures = {"accuracy": proof["float_accuracy"], "int8_accuracy": proof["int8_accuracy"]}
        if given.distill:
            figures = {
                "accuracy": trained["alone_accuracy"],
                "distilled_accuracy": proof["float_accuracy"],
                "int8_accuracy": proof["int8_accuracy"],
                "ensemble_accuracy": trained["ensemble_accuracy"],
            }
        figures |= {
            "params": int(trained["params"]),
            "train_s": round(total_s, 1),
            "int8_kib": round(proof["int8_kib"], 1),
            "int8_ms": round(proof["int8_ms"], 4),
            "images": imported["images"],
        }
    print(json.dumps({**figures, "where": where()}))


if __name__ == "__main__":
    main()
