"""Where pictures come from: one small class per kind of source, and the table that names them.

In: a `CameraConfig`: ``synthetic:belt``, a video file, a folder of images, a camera's number or device, ``rtsp://``,
``http://`` or ``https://`` (MJPEG), ``picamera2``.  Out: a `Source` that delivers (H, W, 3) uint8 BGR pictures.
Knows nothing of threads, trying again, or models.
"""

import re
from pathlib import Path
from typing import Final

from tinysight_contract.errors import CameraError
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.sources.address import Address
from tinysight_edge.sources.base import LASTING, Image, Policy, Source
from tinysight_edge.sources.capture import DeviceSource, FileSource
from tinysight_edge.sources.images import IMAGE_SUFFIXES, MAX_PIXELS, FolderSource, decode_image
from tinysight_edge.sources.paced import PacedSource
from tinysight_edge.sources.picamera import PicameraSource, options_of
from tinysight_edge.sources.rtsp import RtspSource
from tinysight_edge.sources.synthetic import check_synthetic, open_synthetic

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Image",
    "Policy",
    "Source",
    "decode_image",
    "known",
    "name_of",
    "open_source",
    "policy_of",
    "unknown",
]

# A camera's number, or its path; the paths by id and by path stay the same when cameras are plugged in differently.
DEVICE: Final = re.compile(r"\d{1,3}|/dev/video\d{1,3}|/dev/v4l/by-(?:id|path)/[\w.:+-]+")
PICAMERA: Final = re.compile(r"picamera2(:\d)?(\?.*)?")


def policy_of(config: CameraConfig) -> Policy:
    """How the source is to be treated; opens nothing.

    Raises:
        CameraError: the kind is unknown, or no file is there.
    """
    source = config.source
    if (policy := known(source)) is not None:
        return policy
    path = Path(source)
    try:
        folder = path.is_dir()
        there = folder or path.is_file()
    except (OSError, ValueError):  # we may not look, the name is too long, or holds a NUL
        folder = there = False
    if there:
        return Policy(live=config.realtime, still=folder)
    raise unknown(source)


def known(source: str) -> Policy | None:
    """How a source that is no path is to be treated, or None; asks neither the disk nor the network.

    Raises:
        CameraError: its address or its options cannot be understood.
    """
    if source.startswith("synthetic:"):
        check_synthetic(source)
        return Policy(live=True)
    if source.startswith(("rtsp://", "http://", "https://")):
        Address.parse(source)
        return LASTING
    if PICAMERA.fullmatch(source):
        options_of(source)
        return LASTING
    return LASTING if DEVICE.fullmatch(source) else None


def unknown(source: str) -> CameraError:
    """Of a source that is no kind of ours; what stands behind a scheme or a user may be a password, and is hidden."""
    scheme = source.partition("://")[0].partition(":")[0]
    shown = f"{scheme}://" if "://" in source else f"{scheme}:..." if "@" in source else repr(source)
    return CameraError(
        f"Unknown source {shown}.",
        mend="Give a camera's number or /dev/video0, rtsp://, http://, https://, picamera2, picamera2:1, a video, "
        "a folder of images, or synthetic:belt.",
    )


def name_of(config: CameraConfig) -> str:
    """What may be shown of the source, before it is opened and if it never can be: a name without credentials."""
    source = config.source
    if "://" in source:
        try:
            return Address.parse(source).shown
        except CameraError:
            return f"{source.partition(':')[0]}://..."
    if source.isdecimal():
        return f"camera {source}"
    kind = DEVICE.fullmatch(source) or PICAMERA.fullmatch(source) or source.startswith("synthetic:")
    return source.partition("?")[0] if kind else Path(source).name


def open_source(config: CameraConfig, *, secret: str | None = None) -> Source:
    """Open what the user named. May take as long as ``open_timeout`` and some seconds.

    Args:
        config: source, user name, transport, time-outs and whether to play it in real time; nothing else is read.
        secret: the camera's password.

    Raises:
        CameraError: the kind is unknown, nothing is there, or it cannot be opened.
    """
    policy, source = policy_of(config), config.source
    if source.startswith("synthetic:"):
        return open_synthetic(source)
    if not policy.lasting:
        path = Path(source)
        opened = FolderSource(path) if policy.still else FileSource(path)
        return PacedSource(opened) if policy.live else opened
    if source.startswith("picamera2"):
        return PicameraSource(source)
    if DEVICE.fullmatch(source):
        return DeviceSource(source)
    address = Address.parse(source, username=config.username, secret=secret)
    limits = {"open_timeout_s": config.open_timeout, "read_timeout_s": config.read_timeout}
    if address.scheme == "rtsp":
        return RtspSource(address, transport=config.transport, **limits)
    from tinysight_edge.sources.mjpeg import MjpegSource  # noqa: PLC0415 -- HTTP and TLS, only for who uses them

    return MjpegSource(address, **limits)
