"""Evaluation: figures of merit at the level of participants, and their intervals."""
