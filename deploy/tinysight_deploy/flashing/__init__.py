"""Bring a release to devices, many at once."""
