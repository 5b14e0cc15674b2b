"""Memory that a call of FA4 allocates, traced on fake tensors."""
