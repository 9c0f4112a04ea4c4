"""The device: camera → model → tracks → events → MQTT. Start reading at `runtime`."""

import os

# The libraries below print warnings of their own; what fails is said in one line of ours. Read when they are imported.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
os.environ.setdefault(
    "OPENCV_IO_MAX_IMAGE_PIXELS", "100000000"
)  # checked before decoding; sources/images.py says it too
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
