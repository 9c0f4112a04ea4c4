"""A user of MediaPipe, who knows nothing of TinySight: ``MODEL PICTURES.npy`` → one JSON list per line.

PICTURES are (n, height, width, 3) uint8 RGB. A line holds [category name, index, score] of all classes, strongest
first, and what the model's own threshold leaves of it. Runs in an environment with MediaPipe.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

model, pictures = sys.argv[1:]
base = BaseOptions(model_asset_path=model)
everything = vision.ImageClassifierOptions(base_options=base, score_threshold=1e-9)  # 0 or less: the model's own
default = vision.ImageClassifierOptions(base_options=base)
with (
    vision.ImageClassifier.create_from_options(everything) as every,
    vision.ImageClassifier.create_from_options(default) as usual,
):
    for picture in np.load(pictures):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
        answers = [
            [[each.category_name, each.index, each.score] for each in head.categories]
            for head in (every.classify(image).classifications[0], usual.classify(image).classifications[0])
        ]
        sys.stdout.write(json.dumps(answers) + "\n")
