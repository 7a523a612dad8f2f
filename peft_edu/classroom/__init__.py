"""Exercises for a class: numbers of one's own, marks with their reasons, released and graded from the command line."""

from peft_edu.classroom.notebook import ask, check, graded, hint, student

__all__ = ["ask", "check", "graded", "hint", "student"]
