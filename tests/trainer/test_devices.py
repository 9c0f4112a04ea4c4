"""What trains on other devices than one CPU: several at once, and in mixed precision; each in a process of its own."""

import subprocess
import sys
from pathlib import Path


def test_several_devices_share_a_step_and_learn_what_one_learns(tmp_path: Path) -> None:
    """Two logical CPUs stand for two GPUs."""
    program = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tinysight_trainer.config import make_config
from tinysight_trainer.loop import Loop, Progress
from tinysight_trainer.models import build_model
from tinysight_trainer.pictures import Pictures, steps_of
given = make_config({"input": "16x16", "scale": 0.25, "epochs": 2, "batch": 8, "learning_rate": 0.01, "ema": 0.5},
                    task="classify", source="test")
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
shown = [(np.empty((0, 4), np.float32), np.array([n % 2], np.int32), np.zeros(1, bool)) for n in range(32)]
held = Pictures.of(images, shown, [""] * 32)
losses = []
for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build_model(given, 2)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    loop = Loop(model, given, None, 2, steps_per_epoch=steps_of(held, 8), strategy=strategy)
    losses.append([loop.epoch(held, epoch, Progress())["loss"] for epoch in range(2)])
assert np.allclose(losses[0], losses[1], rtol=1e-3), losses
assert losses[0][1] < losses[0][0]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_mixed_precision_trains_and_its_answers_are_plain_numbers(world: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import keras
from tinysight_trainer.config import make_config
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.train import Progress, train
given = make_config({{"input": "32x32", "epochs": 1, "batch": 16, "scale": 0.25, "precision": "mixed_bfloat16"}},
                    task="classify", source="test")
run = train(open_dataset(Path({str(world / "digits")!r})), given, Path("run"), resume=False, progress=Progress())
import msgspec, numpy as np
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_trainer.loop import read_checkpoint
from tinysight_trainer.saliency import GradientSaliency
from tinysight_trainer.models import build_model
assert msgspec.json.decode(read_checkpoint(Path("run"))["about"].tobytes())["precision"] == "mixed_bfloat16"
mixed = build_model(given, 10)
assert mixed.layers[2].compute_dtype == "bfloat16", mixed.layers[2].compute_dtype
assert mixed.output["scores"].dtype == "float32"
pictures = np.zeros((8, 32, 32, 3), np.uint8)
recipes = [Recipe(scheme="int8"), Recipe(scheme="float32")]
assert len(convert_model(Path("run/model.keras"), pictures, recipes).files) == 2
assert np.isfinite(GradientSaliency(mixed).of(pictures[0], 1)).all()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
