"""The sweeps behind the lessons' figures: rows, runs, stored results."""
