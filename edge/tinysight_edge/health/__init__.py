"""How the device does: `machine` reads Linux, `meter` the flow of frames, `verdict` judges, `alerts` tells what stands.

`model_metrics` counts what the model finds; `caretaker` is the one thread that does it all once a second; `prometheus`
serves it; `describe` says what the device is.
"""
