"""Formats and limits of what enters and leaves, nothing else."""
