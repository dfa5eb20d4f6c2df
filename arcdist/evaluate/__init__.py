"""From embeddings to numbers, tables and pictures."""
