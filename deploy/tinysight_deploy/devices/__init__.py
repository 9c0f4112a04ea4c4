"""The inventory of devices, and what may be asked of one."""
