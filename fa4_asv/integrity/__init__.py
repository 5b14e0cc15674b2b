"""Whether the record is sound, and the only door into results/."""
