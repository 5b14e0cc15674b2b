"""The record in results/: its schema, its only reader, and how figures are worded."""
