"""Temporal: how to reach it, and how our messages look on its wire."""
