"""What every part of TinySight agrees on: errors, topics, messages, the manifest and the bundle.

Needs msgspec and the standard library only, so a device, a dashboard back end or a build server can read
the contract without installing anything of the rest. Imports nothing from the other packages.
"""

__version__ = "0.1.0"
