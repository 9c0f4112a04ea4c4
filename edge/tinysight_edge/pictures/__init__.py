"""Pictures that are kept: the best of each event, and those that the model finds hard."""
