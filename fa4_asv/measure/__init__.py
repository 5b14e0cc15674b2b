"""The instruments: each package measures one kind of figure in processes of its own."""
