"""Images → Keras model: data sets, the detector and the classifier, training. Start reading at `train`."""
