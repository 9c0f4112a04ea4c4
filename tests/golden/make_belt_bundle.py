"""Make ``belt.bundle`` again: a small int8 detector for the belt, so that the tests of the edge need no training.

``python tests/golden/make_belt_bundle.py``: about two minutes; only when the bundle's format or the belt changes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.files import replace_file

KEPT_PICTURES = 2


def tinysight(*arguments: str, cwd: str) -> None:
    subprocess.run([sys.executable, "-m", "tinysight_deploy", *arguments, "--quiet"], cwd=cwd, check=True)


with tempfile.TemporaryDirectory() as folder:
    tinysight("data", "synth", "belt", "--out", "data", "--images", "3000", "--seed", "1", cwd=folder)
    tinysight("train", "data", "--out", "run", "--scale", "0.5", "--seed", "1", cwd=folder)
    tinysight("convert", "run", "--out", "belt.bundle", "--version", "1.0.0", cwd=folder)
    whole = Bundle.open(Path(folder) / "belt.bundle")

manifest = whole.manifest
int8 = manifest.variant("int8")
names = ["int8.tflite", "labels.txt", manifest.golden.file, *int8.golden.values()]
files = {name: whole.read(name) for name in names}
for name in (manifest.golden.file, *int8.golden.values()):
    files[name] = files[name][: len(files[name]) * KEPT_PICTURES // manifest.golden.count]
small = replace(
    manifest,
    variants=[int8],
    golden=replace(manifest.golden, count=KEPT_PICTURES),
    files={name: file_ref(data) for name, data in sorted(files.items())},
)
replace_file(Path(__file__).parent / "belt.bundle", pack_bundle(small, files))
