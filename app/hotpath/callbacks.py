"""`call`: other people's functions, called in the middle of ours. What they raise disturbs nobody else."""

import asyncio
from collections.abc import Callable


def call(function: Callable[..., None], *arguments: object) -> None:
    """Call a function that must not wait; what it raises goes to the loop's exception handler."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - another's code
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a callback of the hot path failed: {function!r}", "exception": error}
        )
