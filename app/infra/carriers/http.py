"""`HttpCarrier`: the port `Carrier` over the carrier's HTTP API (docs/SANDBOX.md describes it).

Owns the translation, nothing else; every call is idempotent by our reference and may be asked again.
No complete answer, 429, 5xx and what cannot be read are `Unavailable`; other 4xx are `Refused` with the
carrier's code. If the process dies during a call, its outcome is unknown, and asking again finds it.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from app.domain.errors import Refusal, Refused, Unavailable
from app.domain.fulfilment import FulfilmentPlan
from app.domain.ports import Address, Shipment
from app.infra.outbound import Answer, CallFailed, Outbound

_JSON = (("content-type", "application/json"),)
_PASSING = frozenset({408, 425, 429})


class _Problem(msgspec.Struct):
    code: str = "carrier-refused"
    message: str = ""


class _Error(msgspec.Struct):
    error: _Problem


_read_shipment = msgspec.json.Decoder(Shipment).decode
_read_error = msgspec.json.Decoder(_Error).decode
_write = msgspec.json.Encoder().encode


class HttpCarrier:
    """Fulfils the port `Carrier`. Close it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float = 2.0,
        call_timeout_s: float = 10.0,
        connections_max: int = 64,
    ) -> None:
        """Speak to the carrier at `url`."""
        self._outbound = Outbound(
            url,
            connections_max=connections_max,
            connect_timeout_s=connect_timeout_s,
            call_timeout_s=call_timeout_s,
        )

    async def book(self, plan: FulfilmentPlan, *, address: Address | None, correlation_id: str) -> Shipment:
        """Have a parcel promised under the plan's id."""
        booking: dict[str, Any] = {
            "warehouse": plan.warehouse,
            "lines": plan.lines,
            "address": address,
            "correlation_id": correlation_id,
        }
        return _known(await self._call("PUT", plan.id, "", _write(booking)))

    async def release(self, reference: str) -> Shipment:
        """Let the carrier take it."""
        return _known(await self._call("POST", reference, "/release"))

    async def cancel(self, reference: str) -> Shipment | None:
        """Call it off."""
        return _shipment(await self._call("POST", reference, "/cancel"))

    async def track(self, reference: str) -> Shipment | None:
        """Where it is."""
        return _shipment(await self._call("GET", reference, ""))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._outbound.aclose()

    async def _call(self, method: str, reference: str, verb: str, body: bytes = b"") -> Answer:
        target = f"/v1/shipments/{quote(reference, safe='')}{verb}"
        try:
            answer = await self._outbound.call(method, target, _JSON if body else (), body)
        except CallFailed as failed:
            raise Unavailable("shipping", str(failed)) from failed
        if answer.status >= 500 or answer.status in _PASSING:
            raise Unavailable("shipping", f"the carrier answered {answer.status}")
        return answer


def _shipment(answer: Answer) -> Shipment | None:
    """The shipment, or None for a reference that the carrier has never heard of."""
    return None if answer.status == 404 else _known(answer)


def _known(answer: Answer) -> Shipment:
    """The shipment of an answer. Raises Refused for a 4xx, Unavailable for what cannot be read."""
    try:
        if 200 <= answer.status < 300:
            shipment = _read_shipment(answer.body)
            number = (shipment.tracking_number or "").replace("\0", "") or None  # PostgreSQL keeps no NUL
            return msgspec.structs.replace(shipment, tracking_number=number)
        problem = _read_error(answer.body).error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable("shipping", f"unreadable answer {answer.status}") from error
    raise Refused(
        Refusal(
            problem.code.replace("_", "-"), problem.message.replace("\0", "") or "The carrier refuses this."
        )
    )
