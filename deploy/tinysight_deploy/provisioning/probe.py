"""What kind of machine a device is: a script that it runs, and its answers, read.

In: what `SCRIPT` printed there.  Out: `Facts`. Pure. Whatever a device answers is bounded by whoever runs the script,
and read strictly here; nothing is left in it that a terminal would obey. `probe_findings` judges it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import DeviceError
from tinysight_deploy.remote.targets import plain

__all__ = ["MOST_BYTES", "SCRIPT", "Camera", "Facts", "read_facts", "usb_cameras"]

MOST_BYTES: Final = 64 << 10
_MOST_LINES: Final = 400

SCRIPT: Final = r"""
LC_ALL=C; export LC_ALL; PATH="$PATH:/usr/sbin:/sbin"; root=$1
say() { printf '%s=%s\n' "$1" "$(printf %s "$2" | tr -c '[:print:]' ' ' | cut -c1-200)"; }
first() { head -c 4096 "$1" 2>/dev/null | tr '\000' ' ' | head -n 1; }
there="$root"; while [ ! -d "$there" ] && [ "$there" != / ]; do there=$(dirname "$there"); done
say machine "$(uname -m)"
say user "$(id -un)"
say system "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
say model "$(first /proc/device-tree/model || true)$(first /sys/class/dmi/id/product_name || true)"
say serial "$(first /proc/device-tree/serial-number)"
say machine_id "$(first /etc/machine-id | cut -c1-32)"
say disk_kib "$(df -Pk "$there" 2>/dev/null | awk 'NR==2 {print $4}')"
say memory_kib "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo 2>/dev/null)"
say time "$(date +%s)"
say synced "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
say systemd "$(systemctl --version 2>/dev/null | awk 'NR==1 {print $2}')"
say running "$(systemctl show -p Version --value >/dev/null 2>&1 && echo yes)"
say openssl "$(openssl version 2>/dev/null)"
if [ "$(id -u)" = 0 ]; then say root yes; elif sudo -n true 2>/dev/null; then say root sudo; else say root no; fi
for each in python3 python3.13 python3.12 python3.11; do
  command -v "$each" >/dev/null 2>&1 || continue
  told=$("$each" -I -c '
import importlib.util as u, os, platform as p, struct, sys
have = [str(int(u.find_spec(n) is not None)) for n in ("venv", "sqlite3", "picamera2")]
print(*sys.version_info[:3], struct.calcsize("P") * 8, "".join(p.libc_ver()).replace(" ", "") or "-", *have,
      os.path.realpath(getattr(sys, "_base_executable", sys.executable)))' 2>/dev/null)
  say python "$told"
  case "$told" in "3 1"[1-9]" "*) break ;; esac
done
for each in /sys/class/video4linux/video*; do
  [ -e "$each" ] || continue
  bus=$(readlink -f "$each/device/subsystem" 2>/dev/null)
  say camera "${each##*/} $(first "$each/index") ${bus##*/} $(first "$each/name")"
done
for each in /sys/bus/usb/devices/*/idVendor; do
  [ -e "$each" ] || continue
  case "$(first "$each"):$(first "${each%Vendor}Product")" in 1a6e:089a|18d1:9302) say accelerator edgetpu ;; esac
done
for each in /dev/apex_0 /dev/hailo0 /dev/nvhost-gpu /dev/nvgpu; do
  [ -e "$each" ] || continue
  case "$each" in *apex*) say accelerator edgetpu ;; *hailo*) say accelerator hailo ;; *) say accelerator nvidia ;; esac
done
say end yes
"""
"""For a POSIX shell: prints one ``name=value`` a line, and changes nothing. Its argument is the device's root."""


class Camera(Struct, frozen=True):
    """What Video4Linux lists.

    Attributes:
        node: such as ``video0``.
        bus: ``usb`` for cameras that are plugged in; else a part of the board, a codec perhaps.
        name: as its driver says.
    """

    node: str
    bus: str
    name: str


class Facts(Struct, frozen=True, kw_only=True):
    """A device as it describes itself; nothing here is to be believed more than that.

    Attributes:
        machine: of its programs: ``armv7l`` also on a 64-bit kernel with a 32-bit system.
        kernel: what ``uname -m`` says.
        system: the name of its operating system.
        model: of the board.
        serial: of the board, or of the installation.
        user: who logged in.
        root: how that user does what root may: ``yes``, ``sudo`` or ``no``.
        python: the interpreter's path; empty when there is none that fits.
        python_version: such as ``3.11.2``.
        venv: whether it can make environments.
        libc: such as ``glibc2.36``; ``-`` when it says nothing, as with musl.
        picamera: whether it has the Raspberry Pi's camera library.
        disk_mib: free where TinySight would lie.
        memory_mib: of the machine.
        clock_off_s: how far its clock is ahead of the workstation's.
        clock_synced: whether it is set by the network; None when it does not say.
        systemd: its version, 0 without.
        systemd_runs: whether it is what started the machine.
        openssl: whether the command is there.
        cameras: what may be cameras.
        accelerators: of inference.
    """

    machine: str
    kernel: str
    system: str
    model: str
    serial: str
    user: str
    root: Literal["yes", "sudo", "no"]
    python: str
    python_version: str
    venv: bool
    libc: str
    picamera: bool
    disk_mib: int
    memory_mib: int
    clock_off_s: float
    clock_synced: bool | None
    systemd: int
    systemd_runs: bool
    openssl: bool
    cameras: tuple[Camera, ...]
    accelerators: tuple[str, ...]

    @property
    def target(self) -> str:
        """The wheelhouse that it needs, such as ``aarch64-py311``."""
        return f"{self.machine}-py{''.join(self.python_version.split('.')[:2])}"


class _Answers(Struct, frozen=True, kw_only=True):
    """The single lines, as strictly as they are written."""

    machine: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,20}(?![\s\S])")]
    user: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9._-]{0,31}(?![\s\S])")]
    system: Annotated[str, Meta(max_length=200)] = ""
    model: Annotated[str, Meta(max_length=200)] = ""
    serial: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{0,64} ?(?![\s\S])")] = ""
    machine_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{0,32}(?![\s\S])")] = ""
    disk_kib: Annotated[str, Meta(pattern=r"^[0-9]{1,15}(?![\s\S])")]
    memory_kib: Annotated[str, Meta(pattern=r"^[0-9]{1,15}(?![\s\S])")]
    time: Annotated[str, Meta(pattern=r"^[0-9]{1,12}(?![\s\S])")]
    synced: Literal["yes", "no", ""] = ""
    systemd: Annotated[str, Meta(pattern=r"^[0-9]{0,4}(?![\s\S])")] = ""
    running: Literal["yes", ""] = ""
    openssl: str = ""
    root: Literal["yes", "sudo", "no"]
    end: Literal["yes"]


_PYTHON: Final = re.compile(
    r"3 (?P<minor>\d{1,2}) (?P<micro>\d{1,2}) (?P<bits>32|64) (?P<libc>[a-z]{0,10}[0-9.]{0,8}|-) (?P<venv>[01]) "
    r"(?P<sqlite>[01]) (?P<picamera>[01]) (?P<path>/[A-Za-z0-9/._+-]{1,150})",
    re.ASCII,
)
_CAMERA: Final = re.compile(
    r"(?P<node>video\d{1,3}) (?P<index>\d{1,3})? ?(?P<bus>[a-z0-9_-]{0,20}) ?(?P<name>.{0,150})", re.ASCII
)


def read_facts(told: bytes, now_s: float) -> Facts:
    """Read what the script printed.

    Args:
        told: its output.
        now_s: what time it is here, as a Unix time.

    Raises:
        DeviceError: that is not what the script prints.
    """
    single: dict[str, str] = {}
    several: dict[str, list[str]] = {"python": [], "camera": [], "accelerator": []}
    lines = told.decode("ascii", "replace").splitlines()
    if len(lines) > _MOST_LINES:
        raise _nonsense("it has too many lines")
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or not (value.isprintable() and value.isascii()):
            raise _nonsense(f"a line is {plain(line, 60)!r}")
        if name in several:
            several[name].append(value.strip())
        elif name in single or name not in _Answers.__struct_fields__:
            raise _nonsense(f"a line names {plain(name, 30)!r}")
        else:
            single[name] = " ".join(value.split())
    try:
        answers = msgspec.convert(single, _Answers)
    except msgspec.ValidationError as error:
        raise _nonsense(plain(str(error), 120)) from error
    pythons = [found for each in several["python"] if (found := _PYTHON.fullmatch(each))]
    fit = next((each for each in pythons if 11 <= int(each["minor"]) < 30 and each["sqlite"] == "1"), None)
    best = fit or next(iter(pythons), None)
    cameras = [found for each in several["camera"] if (found := _CAMERA.fullmatch(each))]
    return Facts(
        machine=_of_programs(answers.machine, best["bits"] if best else "64"),
        kernel=answers.machine,
        system=answers.system,
        model=answers.model,
        serial=answers.serial.strip() or answers.machine_id,
        user=answers.user,
        root=answers.root,
        python=fit["path"] if fit else "",
        python_version=f"3.{best['minor']}.{best['micro']}" if best else "",
        venv=fit is not None and fit["venv"] == "1",
        libc=best["libc"] if best else "-",
        picamera=fit is not None and fit["picamera"] == "1",
        disk_mib=int(answers.disk_kib) >> 10,
        memory_mib=int(answers.memory_kib) >> 10,
        clock_off_s=round(int(answers.time) - now_s, 1),
        clock_synced={"yes": True, "no": False}.get(answers.synced),
        systemd=int(answers.systemd or 0),
        systemd_runs=answers.running == "yes",
        openssl=bool(answers.openssl),
        cameras=tuple(
            Camera(each["node"], each["bus"], each["name"].strip()) for each in cameras if each["index"] in {"0", None}
        ),
        accelerators=tuple(
            dict.fromkeys(each for each in several["accelerator"] if each in {"edgetpu", "hailo", "nvidia"})
        ),
    )


def _of_programs(kernel: str, bits: str) -> str:
    """The machine for which programs are made."""
    if bits == "32" and kernel.startswith(("aarch64", "armv8")):
        return "armv7l"
    return "armv7l" if kernel == "armv8l" else kernel


def usb_cameras(facts: Facts) -> Sequence[Camera]:
    """Those that are cameras for certain; a board lists its codecs as well."""
    return [each for each in facts.cameras if each.bus == "usb"]


def _nonsense(why: str) -> DeviceError:
    return DeviceError(
        f"The device does not describe itself as it should: {why}.",
        mend="Log in by hand and look: this is no system that TinySight knows, or somebody answers for it.",
    )
