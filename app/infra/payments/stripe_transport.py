"""How the stripe library sends its requests: through our own connections.

Owns the library's `HTTPClient` extension point, nothing else. One attempt per call, always: the library's own
retries are off, the workflow's activities are the one layer that retries.
"""

from collections.abc import Mapping
from typing import NoReturn

import stripe

from app.infra.outbound import CallFailed, Outbound


class StripeTransport(stripe.HTTPClient):
    """Sends what the library has encoded."""

    name = "holdfast"

    def __init__(self, outbound: Outbound) -> None:
        """Send through `outbound`, whose origin is the API's base address."""
        super().__init__()
        self._outbound = outbound

    def request(self, *_: object, **__: object) -> NoReturn:
        """Refuse: nothing blocks here."""
        raise NotImplementedError("asynchronous only")

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, dict[str, str]]:
        """One attempt. Raises stripe.APIConnectionError when no complete answer came."""
        target = url.removeprefix(self._outbound.origin)
        body = (post_data or "").encode()
        try:
            answer = await self._outbound.call(method.upper(), target, list(headers.items()), body)
        except CallFailed as failed:
            raise stripe.APIConnectionError(str(failed)) from failed  # type: ignore[no-untyped-call]
        return answer.body, answer.status, answer.headers

    async def close_async(self) -> None:
        """Close the kept connections."""
        await self._outbound.aclose()

    def close(self) -> None:
        """Do nothing; see `close_async`."""
