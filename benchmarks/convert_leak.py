"""Convert one model twenty times in a row: does the converting process grow, and how long does each take?

    python benchmarks/convert_leak.py        about 5 minutes on 2 cores

TensorFlow's converter leaks about 3 MB a call, so it runs in a child process. Prints one JSON line last: by how much
this process grew from the second conversion to the last, and the seconds of each.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from steps import tinysight, where

from tinysight_converters.calibration import choose_calibration
from tinysight_converters.run import MODEL, load_examples, load_run
from tinysight_converters.tflite import Recipe, convert_model


def resident_kib() -> int:
    """Of this process now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    """Train a little, convert often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tinysight("data", "synth", "belt", "--out", "belt", "--images", "200", cwd=folder)
        tinysight("train", "belt", "--out", "run", "--epochs", "1", cwd=folder)
        run, examples = load_run(folder / "run"), load_examples(folder / "run")
        calibration = choose_calibration(examples.calibration, Path(run.dataset), run.input)
        seconds, kib = [], []
        for _ in range(given.times):
            begun = time.monotonic()
            convert_model(folder / "run" / MODEL, calibration.pictures, [Recipe(scheme="int8")])
            seconds.append(round(time.monotonic() - begun, 2))
            kib.append(resident_kib())
    figures = {"conversions": given.times, "grown_kib": kib[-1] - kib[1], "resident_mib": kib[-1] // 1024}
    print(json.dumps({**figures, "seconds_each": round(statistics.median(seconds), 2), "where": where()}))


if __name__ == "__main__":
    main()
