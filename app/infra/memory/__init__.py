"""Adapters that keep everything in memory: real fakes, for tests and experiments in one process."""
