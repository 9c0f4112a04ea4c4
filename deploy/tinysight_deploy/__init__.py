"""The command line's root, flashing, the development broker, the terminal's view and the demo."""
