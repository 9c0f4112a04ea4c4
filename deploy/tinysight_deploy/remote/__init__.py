"""Devices over SSH: who they are, what they answer, and how little of that is believed."""
