"""The marker in Temporal: an entry in the data of the namespace.

Guarantees that nothing is polled in, or told to, the namespace of another environment. Reading it needs no
more than a worker may do anyway. Writing it may be the administrators' (Temporal Cloud, an authorizer): then
the namespace stays as it is and the worker says so once and goes on; what keeps others out there is the
credential. If the process dies here, the marker is written or it is not.
"""

import asyncio
from contextlib import suppress
from typing import Final

from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.infra.markers import KEEP_INTERVAL_S, AnotherEnvironmentError, Markers
from app.observability.logging import logger

SERVICE: Final = "temporal"
ENTRY: Final = "holdfast_environment"

_MEND: Final = "temporal operator namespace update --namespace {namespace} --data {entry}={own}"

_AWAY: Final = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
    }
)
"""What means "not now". Every other error of an update means that we may not, or cannot, write a marker."""

log = logger("temporal")


async def examine(client: Client, markers: Markers) -> bool:
    """Hold the namespace's marker against ours; write it where it is missing. Whether there is one now.

    Raises AnotherEnvironmentError, and RPCError where Temporal does not answer.
    """
    found = await _read(client)
    if not found and markers.is_sure:
        info = UpdateNamespaceInfo(data={ENTRY: markers.environment})
        request = UpdateNamespaceRequest(namespace=client.namespace, update_info=info)
        try:
            await client.workflow_service.update_namespace(request)
        except RPCError as error:
            if error.status in _AWAY:
                raise
            log.warning("namespace_without_marker", namespace=client.namespace, error=error.message)
        found = await _read(client)
    _compare(client, markers, found)
    return bool(found)


async def keep(client: Client, markers: Markers, interval_s: float = KEEP_INTERVAL_S) -> None:
    """Look at the marker now and then: the client reconnects by itself and tells nobody.

    Ends when the marker is another's. A namespace that could not be marked is only read.
    """
    with suppress(AnotherEnvironmentError):
        while True:
            await asyncio.sleep(interval_s)
            with suppress(RPCError):
                _compare(client, markers, await _read(client))


def _compare(client: Client, markers: Markers, found: str) -> None:
    if found:
        mend = _MEND.format(namespace=client.namespace, entry=ENTRY, own=markers.environment)
        markers.compare("TEMPORAL_NAMESPACE", SERVICE, found, mend=mend)


async def _read(client: Client) -> str:
    """The entry as it is; the command line of Temporal leaves quotes around it."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    answer = await client.workflow_service.describe_namespace(request)
    return answer.namespace_info.data.get(ENTRY, "").strip('"')
