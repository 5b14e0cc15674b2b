"""Seconds of a first call and of the import."""
