"""How a device gets a new bundle, and gets rid of a bad one.

Start at `installer`. A bundle goes from a `sources.Source` (a folder or a web server) through `trust` (The Update
Framework) and `transfer` into the store, through `selftest` in a process of its own, and, by `updater`, `swap` and
`trial`, under the real cameras. What is decided stands in `update`, which knows no clock, socket or file.
"""
