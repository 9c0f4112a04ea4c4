"""The only user of TensorFlow's TFLite converter, in a child process because it leaks.

``python -P -m tinysight_converters.tflite`` reads a job from its first argument (JSON) and writes one .tflite file per
scheme; with ``-P`` no module in the user's folder is taken for one of ours. In: a Keras model with named outputs,
fitted uint8 pictures to calibrate with.  Out: flatbuffers with a static batch of one, a signature with the model's own
output names, built-in operators only.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError

__all__ = ["convert_model"]

TIMEOUT_S: Final = 1800.0


class Job(Struct, frozen=True, kw_only=True):
    """What the child is to do: scheme to target file; ``calibration`` is a .npy of uint8 (n, h, w, 3)."""

    model: str
    calibration: str
    targets: dict[str, str]


def convert_model(model: Path, calibration: NDArray[np.uint8], schemes: tuple[str, ...]) -> dict[str, bytes]:
    """Convert a Keras model in a child process; scheme to flatbuffer.

    Args:
        model: the ``.keras`` file.
        calibration: fitted pictures (n, height, width, 3) uint8, as the device will feed them.
        schemes: of ``float32`` and ``int8``; ``int8-qat`` of a fake-quantized model (``clone.py``), which brings its
            ranges with it and needs no pictures.

    Raises:
        ConversionError: the converter failed, with its own words; or it took longer than half an hour.
    """
    with tempfile.TemporaryDirectory(prefix="tinysight-convert-") as folder:
        targets = {scheme: str(Path(folder) / f"{scheme}.tflite") for scheme in schemes}
        pictures = Path(folder) / "calibration.npy"
        np.save(pictures, calibration, allow_pickle=False)
        job = Job(model=str(model), calibration=str(pictures), targets=targets)
        command = [sys.executable, "-P", "-m", "tinysight_converters.tflite", msgspec.json.encode(job).decode()]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, env=env, check=False)
        except subprocess.TimeoutExpired as error:
            raise ConversionError("The converter does not end.", mend="Try a smaller model.") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            why = lines[-1].strip() if lines else f"status {done.returncode}"
            raise ConversionError(f"The TFLite converter failed: {why}.", mend="Check the model's layers.")
        return {scheme: Path(target).read_bytes() for scheme, target in targets.items()}


def _work(job: Job) -> None:
    """The child's side."""
    import keras  # noqa: PLC0415 -- the parent must not load TensorFlow
    import tensorflow as tf  # noqa: PLC0415 -- see above

    from tinysight_converters import fake_quant  # noqa: F401, PLC0415 -- Keras finds its layers when it loads a model

    model = keras.models.load_model(job.model, compile=False, safe_mode=True)
    pictures = np.load(job.calibration, allow_pickle=False)
    with tempfile.TemporaryDirectory(prefix="tinysight-saved-") as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda image: model(image, training=False),
            input_signature=[tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="image")],
        )
        archive.write_out(folder, verbose=False)
        for scheme, target in job.targets.items():
            Path(target).write_bytes(_convert(tf, folder, scheme, pictures))


def _convert(tf: Any, saved_model: str, scheme: str, pictures: NDArray[np.uint8]) -> bytes:  # noqa: ANN401 -- TensorFlow has no types
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if scheme == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture[None].astype(np.float32)] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    else:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if scheme == "int8-qat":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme in {"int8", "int8-qat"}:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    return bytes(converter.convert())


if __name__ == "__main__":
    _work(msgspec.json.decode(sys.argv[1], type=Job))
