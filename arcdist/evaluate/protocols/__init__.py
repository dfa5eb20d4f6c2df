"""The field's benchmarks by name: their lists in, their figures out."""
