"""The launch contract: what a call of FA4 compiles, reads back from the card and allocates before its kernels run."""
