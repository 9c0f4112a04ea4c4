"""A wheelhouse that is whole in every way and small: TinySight's wheel in it only says what the real one would.

Its ``tinysight`` answers ``--version``, finds ``agent.toml`` right unless ``wrong`` stands in it, and not yet to be run
when ``later`` does; ``run`` tells systemd that it is ready, and waits.
"""

import base64
import ensurepip
import hashlib
import platform
import shutil
import sys
import zipfile
from pathlib import Path

import msgspec

from tinysight_deploy.wheels.target import glibc_needed
from tinysight_deploy.wheels.wheelhouse import Wheel, Wheelhouse

UNIT = Path(__file__).parents[2] / "edge/systemd/tinysight-agent.service"
TARGET = f"{platform.machine()}-py3{sys.version_info.minor}"
PROGRAM = """
import json, os, signal, socket, sys, threading
def main():
    words = sys.argv[1:]
    if words == ["--version"]:
        print("tinysight @VERSION@")
    elif words[:2] == ["config", "check"]:
        text = open(words[2]).read()
        if "wrong" in text:
            found = {"line": 1, "key": "site", "level": "error", "what": "It is \\x1b[31mwrong.", "mend": "Right it."}
            print(json.dumps({"ok": False, "findings": [found]}))
            sys.exit(2)
        if "later" in text:
            sys.exit("error: the store has no bundle")
    elif words[:1] == ["run"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        threading.Event().wait()
"""


def make(folder: Path, version: str) -> Path:
    """The wheelhouse's own folder."""
    house = folder / TARGET
    wheels = house / "wheels"
    wheels.mkdir(parents=True)
    own = wheels / f"tinysight-{version}-py3-none-any.whl"
    files = {
        "tiny_main.py": PROGRAM.replace("@VERSION@", version),
        **{f"{name}.py": "" for name in ("cv2", "numpy")},
        **{f"tinysight_edge/{name}.py": "" for name in ("__init__", "cli", "interpreter", "runtime")},
        f"tinysight-{version}.data/data/lib/systemd/system/{UNIT.name}": UNIT.read_text(),
        f"tinysight-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: tinysight\nVersion: {version}\nProvides-Extra: edge\n"
        ),
        f"tinysight-{version}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"tinysight-{version}.dist-info/entry_points.txt": "[console_scripts]\ntinysight = tiny_main:main\n",
    }
    record = f"tinysight-{version}.dist-info/RECORD"
    with zipfile.ZipFile(own, "w") as out:
        lines = []
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text.encode())}\n")
            out.writestr(name, text)
        out.writestr(record, "".join([*lines, f"{record},,\n"]))
    places = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))  # the latter is Debian's
    bundled = next(path for place in places for path in place.glob("pip-*.whl"))
    pip = Path(shutil.copy(bundled, wheels))
    made = Wheelhouse(
        target=TARGET,
        glibc=glibc_needed([own.name]),
        wheels=(_wheel(own, "tinysight", version),),
        pip=_wheel(pip, "pip", bundled.name.split("-")[1]),
    )
    (house / "requirements.txt").write_text(made.requirements())
    (house / "wheelhouse.json").write_bytes(msgspec.json.encode(made))
    return house


def _wheel(path: Path, name: str, version: str) -> Wheel:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Wheel(file=path.name, name=name, version=version, sha256=digest, size_bytes=len(data))
