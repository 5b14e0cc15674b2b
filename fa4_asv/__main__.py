"""`python -m fa4_asv` is the command `fa4-asv`."""

from fa4_asv.cli import run

run()
