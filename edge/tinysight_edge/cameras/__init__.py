"""From a source to the inference thread: capture, turning and masking, noticing a blind camera, handing over."""
