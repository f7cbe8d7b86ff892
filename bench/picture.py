"""Owns the picture of a run: one bar a figure, its spread, and a line at its goal."""

from pathlib import Path

from bench.results import Document


def write(document: Document, path: Path) -> None:
    """Draw the results. Raises OSError."""
    raise NotImplementedError
