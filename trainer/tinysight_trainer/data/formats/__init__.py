"""Formats that data sets come and go in."""
