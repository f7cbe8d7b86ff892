"""msgspec structs as Temporal payloads: plain JSON, so that the Web UI shows them as they are."""

from typing import Any, Final

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    EncodingPayloadConverter,
    JSONProtoPayloadConverter,
)

_METADATA: Final = {"encoding": b"json/plain"}


class MsgspecPayloadConverter(EncodingPayloadConverter):
    """Encodes anything msgspec knows and decodes it strictly into the type that is expected."""

    @property
    def encoding(self) -> str:
        """The encoding that Temporal's own JSON converter uses too."""
        return "json/plain"

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ANN401 - any message
        """One value as a payload."""
        return Payload(metadata=_METADATA, data=msgspec.json.encode(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ANN401
        """One payload as a value of `type_hint`. Raises msgspec.ValidationError."""
        return msgspec.json.decode(payload.data, type=Any if type_hint is None else type_hint)


class _Composite(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(
            BinaryNullPayloadConverter(),
            BinaryPlainPayloadConverter(),
            JSONProtoPayloadConverter(),
            MsgspecPayloadConverter(),
        )


DATA_CONVERTER: Final = DataConverter(payload_converter_class=_Composite)
"""What clients, workers and replayers are given."""
