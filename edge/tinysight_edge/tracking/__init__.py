"""Who is who from frame to frame: objects that are followed, and what a classifier says of the whole picture."""
