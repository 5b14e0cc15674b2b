"""What is measured, in tables: kernels, shapes, benchmarks and their metrics."""
