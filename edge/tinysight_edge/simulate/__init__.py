"""Devices that are not there, with events that were."""
