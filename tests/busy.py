"""How much longer than is promised anything may take on a machine that has other things to do."""

from typing import Final

BUSY_S: Final = 10.0
"""In seconds, on top of the promise; where that cannot tell a promise from its breach, test otherwise."""
