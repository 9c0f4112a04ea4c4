"""The repository: signed releases in a folder that any web server serves."""
