"""How the garbage collector is set in every mode: what is built at the start stays, the rest is few cycles.

It holds nothing.
"""

import gc
from typing import Final

COLLECT_AFTER: Final = (20_000, 20, 20)
"""Objects by which the heap has to grow before the garbage collector looks at the youngest; and how many such
looks come before one at the older ones. By default it took a tenth of the time of an order, and a quarter of
that of a read from Redis: documents and workflows that are kept are many, and it looked at all of them."""


def settle() -> None:
    """Have the garbage collector pass over what was built so far, and look more rarely. Call it once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
