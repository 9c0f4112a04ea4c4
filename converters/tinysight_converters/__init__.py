"""Keras → TFLite: quantize, prove, and write the bundle. Start reading at `convert`."""
