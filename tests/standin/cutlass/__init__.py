"""A stand-in for the DSL, for tests: as much of it as the stand-in of FA4 needs."""
