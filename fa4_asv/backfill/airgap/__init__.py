"""A machine without a network: a pack made here, `unpack.py` (standard library only) on the machine there."""
