"""The rules of an order platform: pure Python, no I/O, no clock, no randomness, no framework."""
