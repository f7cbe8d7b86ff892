"""The handlers that a replay can run: one readable table."""

from collections.abc import Mapping

from app.replay.handlers import Handler


def handlers() -> Mapping[str, Handler]:
    """Every handler by its name."""
    known: tuple[Handler, ...] = ()
    return {handler.name: handler for handler in known}
