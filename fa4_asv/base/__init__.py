"""Errors, files, processes, locks and escaping: what every package uses and none of it knows FA4."""
