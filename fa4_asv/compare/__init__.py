"""Two commits against each other: changes, rows, verdicts, formats."""
