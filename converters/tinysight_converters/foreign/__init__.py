"""From somebody else's model to a bundle. START HERE: ``importer.py``."""
