"""All that a device runs, gathered on the workstation."""
