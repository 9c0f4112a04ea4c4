"""Watch what devices tell."""
