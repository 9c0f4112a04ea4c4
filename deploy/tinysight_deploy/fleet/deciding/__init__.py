"""Whom a rollout asks next, and whether it goes on. Pure: no I/O and no clock. START HERE: `decide`."""
