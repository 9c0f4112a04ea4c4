"""The device carries nothing of the workstation, and the command line answers at once."""

import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow",
    "keras",
    "sklearn",
    "matplotlib",
    "scipy",
    "pycocotools",
    "iotcore",
    "tinysight_trainer",
    "tinysight_converters",
)


@pytest.mark.parametrize(
    "module",
    [
        "tinysight_edge.runtime",
        "tinysight_edge.cli",
        "tinysight_edge.cli_config",
        "tinysight_edge.config.reloader",
        "tinysight_edge.store",
        "tinysight_deploy.flashing.cli",
        "tinysight_deploy.watching.watch",
        "tinysight_edge.cli_doctor",
        "tinysight_edge.simulate.crowd",
        "tinysight_edge.pictures.pictures",
    ],
)
def test_the_device_side_starts_without_the_workstations_stack(module: str) -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"
    subprocess.run([sys.executable, "-c", f"{block}; import {module}"], check=True)


def test_the_contract_needs_msgspec_and_nothing_else() -> None:
    others = ("numpy", "cv2", "paho", "rich", "typer", "tinysight_edge")
    block = f"import sys; sys.modules.update(dict.fromkeys({others!r}))"
    modules = "tinysight_contract.bundle, tinysight_contract.messages, tinysight_contract.schemas"
    subprocess.run([sys.executable, "-c", f"{block}; import {modules}"], check=True)


def test_help_imports_typer_and_nothing_of_ours_but_the_root() -> None:
    code = (
        "import sys; sys.argv = ['tinysight', '--help']\n"
        "from tinysight_deploy.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "bad = ('numpy', 'cv2', 'paho', 'tinysight_edge', 'tinysight_trainer')\n"
        "print([n for n in sys.modules if n.split('.')[0] in bad], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    for command in ("demo", "train", "tune", "convert", "flash", "run", "config", "watch", "broker"):
        assert command in done.stdout
