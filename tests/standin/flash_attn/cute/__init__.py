"""A stand-in for FA4, for tests: see interface.py."""
