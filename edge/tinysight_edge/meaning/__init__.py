"""What tracks mean: where they are, what they crossed, which of them are worth an event."""
