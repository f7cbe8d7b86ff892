"""The handlers that a replay can run: one readable table."""

from collections.abc import Mapping

from app.projections.rebuilt import REBUILT
from app.replay.handlers import Handler
from app.replay.projection import Rebuild


def handlers() -> Mapping[str, Handler]:
    """Every handler by its name."""
    known: tuple[Handler, ...] = (*(Rebuild(projection) for projection in REBUILT),)
    return {handler.name: handler for handler in known}
