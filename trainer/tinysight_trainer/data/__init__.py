"""From raw pictures to a data set one can trust: import, collect, label, clean, split, look."""
