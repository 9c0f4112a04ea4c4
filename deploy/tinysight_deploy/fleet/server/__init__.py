"""What operators and devices ask over HTTP. START HERE: `api`, then `desk`."""
