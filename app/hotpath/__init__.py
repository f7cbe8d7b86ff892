"""Redis at the speed of the wire: one auto-pipelined connection, and what is built on it.

A library of its own: it imports nothing else of the program. Start at `client.py`; docs/HOTPATH.md has a
picture of one tick.
"""
