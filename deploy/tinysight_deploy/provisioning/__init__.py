"""Make a machine a device."""
