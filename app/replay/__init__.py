"""Replays: events of the past run through a handler again, shown first, and applied as they were shown."""
