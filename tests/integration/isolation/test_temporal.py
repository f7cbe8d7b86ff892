"""The marker of the Temporal namespace: it is read before anything is polled, and written where we may."""

import asyncio
import itertools
import os
from typing import Any

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeNamespaceResponse
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.infra.markers import AnotherEnvironmentError
from app.infra.temporal.marker import ENTRY, examine, keep
from tests.integration.isolation.other import Told, mark_namespace, marker_of_namespace, new_namespace

_numbers = itertools.count(1)


def name() -> str:
    """A namespace that nobody has."""
    return f"isolation-{os.getpid()}-{next(_numbers)}"


async def test_a_namespace_without_a_marker_gets_ours(temporal_address: str):
    """PostgreSQL has said that it is ours."""
    client = await new_namespace(temporal_address, name())
    assert await examine(client, Told("staging").markers)
    assert await marker_of_namespace(client) == "staging"


async def test_before_postgresql_has_said_anything_nothing_is_written(temporal_address: str):
    """It is only read."""
    client = await new_namespace(temporal_address, name())
    assert not await examine(client, Told(is_sure=False).markers)
    assert await marker_of_namespace(client) is None


async def test_the_namespace_of_another_environment_ends_the_process(
    temporal_address: str, capsys: pytest.CaptureFixture[str]
):
    """It stays as it was."""
    client = await new_namespace(temporal_address, name(), "production")
    told = Told()
    with pytest.raises(AnotherEnvironmentError):
        await examine(client, told.markers)
    assert (told.stop.is_set(), await marker_of_namespace(client)) == (True, "production")
    line = (
        "holdfast: TEMPORAL_NAMESPACE must lead to the namespace of ENVIRONMENT 'dev': the marker there says "
    )
    mend = (
        "mend TEMPORAL_NAMESPACE or ENVIRONMENT (were the marker wrong itself: docs/ISOLATION.md, Changing a "
    )
    said = capsys.readouterr().err
    assert said == f"{line}'production': {mend}marker on purpose)\n"


async def test_a_namespace_whose_marker_names_nobody_may_be_marked(
    temporal_address: str, capsys: pytest.CaptureFixture[str]
):
    """The line says how."""
    client = await new_namespace(temporal_address, name(), "not yet known")
    with pytest.raises(AnotherEnvironmentError):
        await examine(client, Told().markers)
    mend = f"temporal operator namespace update --namespace {client.namespace} --data {ENTRY}=dev"
    assert f"ENVIRONMENT (only if it is dev's all the same: {mend})" in capsys.readouterr().err


async def test_what_temporals_own_command_writes_is_read(temporal_address: str):
    """`--data` wants JSON, and keeps its quotes."""
    client = await new_namespace(temporal_address, name(), '"dev"')
    assert await examine(client, Told().markers)


class _Narrow:
    """A service as Temporal Cloud shows it to a worker: a namespace may be described and not updated."""

    def __init__(self, client: Client, status: RPCStatusCode) -> None:
        self.workflow_service = self
        self.namespace = client.namespace
        self._client = client
        self._status = status

    async def describe_namespace(self, request: DescribeNamespaceRequest) -> DescribeNamespaceResponse:
        return await self._client.workflow_service.describe_namespace(request)

    async def update_namespace(self, _: Any) -> None:
        raise RPCError("no", self._status, b"")


@pytest.mark.parametrize("status", [RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED])
async def test_a_namespace_that_we_may_not_mark_is_used(temporal_address: str, status: RPCStatusCode):
    """Its administrator may mark it; the credential keeps others out."""
    client = await new_namespace(temporal_address, name())
    told = Told()
    assert not await examine(_Narrow(client, status), told.markers)  # type: ignore[arg-type]
    assert not told.stop.is_set()


async def test_a_temporal_that_does_not_answer_is_asked_again(temporal_address: str):
    """Nothing is known: nothing may be polled."""
    client = await new_namespace(temporal_address, name())
    with pytest.raises(RPCError):
        await examine(_Narrow(client, RPCStatusCode.UNAVAILABLE), Told().markers)  # type: ignore[arg-type]


async def test_a_namespace_that_becomes_another_environments_ends_the_process(temporal_address: str):
    """The client reconnects by itself and tells nobody: so it is looked at now and then."""
    client = await new_namespace(temporal_address, name(), "dev")
    told = Told()
    keeping = asyncio.create_task(keep(client, told.markers, 0.01))
    await mark_namespace(client, "production")
    async with asyncio.timeout(30):
        await told.stop.wait()
        await keeping
