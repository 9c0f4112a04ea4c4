"""Rollouts: a model for many devices in stages, each judged before the next. START HERE: `decide`, `controller`."""
