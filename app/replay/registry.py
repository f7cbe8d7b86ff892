"""The handlers that a replay can run: one readable table."""

from collections.abc import Mapping

from app.infra.redis.documents import Documents
from app.projections.rebuilt import REBUILT
from app.replay.documents import OrderDocuments
from app.replay.handlers import Handler
from app.replay.projection import Rebuild
from app.replay.reprice import Reprice


def handlers(documents: Documents | None = None) -> Mapping[str, Handler]:
    """Every handler by its name. Whoever only asks for replays needs no `documents`."""
    known: tuple[Handler, ...] = (
        *(Rebuild(projection) for projection in REBUILT),
        OrderDocuments(documents),
        Reprice(documents),
    )
    return {handler.name: handler for handler in known}
