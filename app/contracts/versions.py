"""Events of old versions, as the consumers of today expect them. What is stored and published stays."""

import msgspec
from msgspec.structs import replace

from app.contracts.streams import Envelope
from app.domain.upcasters import VERSIONS, Versions


def brought_up(event: Envelope, versions: Versions = VERSIONS) -> Envelope:
    """An event of an old version as one of today's; any other as it is, the unknown ones with them.

    Raises UnreadableEvent when its data is not what its type says.
    """
    if event.type not in versions.old:
        return event
    today = versions.read(event.type, event.data)
    return replace(
        event,
        type=str(today.__struct_config__.tag),
        data=msgspec.Raw(msgspec.json.encode(today)),
    )
