"""What the record lacks, how long it takes, and measuring it commit by commit."""
