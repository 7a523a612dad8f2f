"""Tasks: rows in files, their encoding for a model, and how right its answers are."""
