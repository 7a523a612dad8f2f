"""What a learner moves and presses."""
