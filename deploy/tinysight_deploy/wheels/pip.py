"""pip as if it ran on another machine: ``python -P -m tinysight_deploy.wheels.pip MACHINE PYTHON ARGUMENTS``.

pip chooses wheels for a foreign platform when told to, but reads the conditions of requirements (``platform_machine ==
'armv7l'``) for the machine that it runs on. This tells it the other one's, and refuses to go on if that has no effect.
"""

import importlib
import sys

__all__: list[str] = []


def main(machine: str, python: str, arguments: list[str]) -> int:
    """Run pip; its exit status."""
    markers = importlib.import_module("pip._vendor.packaging.markers")
    here = markers.default_environment()
    there = {
        **here,
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
    }
    setattr(markers, "default_environment", lambda: there)  # noqa: B010 -- it is no part of pip's interface
    condition = f"platform_machine == '{machine}' and python_version == '{python}' and sys_platform == 'linux'"
    if not markers.Marker(condition).evaluate({"extra": ""}):
        sys.stderr.write("ERROR: this pip cannot be told of another machine\n")
        return 3
    run = importlib.import_module("pip._internal.cli.main").main
    return int(run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
