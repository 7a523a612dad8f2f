"""Models by name: pretrained ones, and those of the papers' sizes without weights."""
