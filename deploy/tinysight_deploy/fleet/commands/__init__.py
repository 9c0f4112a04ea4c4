"""`tinysight rollout`, `fleet` and `audit`."""
