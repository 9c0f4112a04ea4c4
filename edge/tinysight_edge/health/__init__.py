"""How the device does: `machine` reads Linux, `meter` the flow of frames, `model_metrics` what the model finds;
`verdict` judges, `alerts` tells what stands.

`caretaker` is the one thread that does it all once a second; `prometheus` serves it; `describe` says what the device
is.
"""
