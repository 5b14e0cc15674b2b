"""A machine without a network: `pack` here, `unpack.py` (standard library only) on the machine there."""
