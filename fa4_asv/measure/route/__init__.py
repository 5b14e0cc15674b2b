"""Which PyTorch reaches FA4 through SDPA, checked without a GPU."""
