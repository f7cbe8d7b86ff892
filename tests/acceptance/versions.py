"""What Temporal knows of workers' versions, and which processes carried a workflow."""

import asyncio

from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import EventType, VersioningBehavior, WorkflowTaskFailedCause
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.contracts.temporal import workflow_id

_TIMEOUT_S = 120.0


async def served(client: Client, name: str, build: str, queues: set[str]) -> set[str]:
    """The queues that a version is known to serve, as soon as these are among them."""
    version = WorkerDeploymentVersion(deployment_name=name, build_id=build)
    asked = DescribeWorkerDeploymentVersionRequest(namespace=client.namespace, deployment_version=version)
    known: set[str] = set()
    async with asyncio.timeout(_TIMEOUT_S):
        while not queues <= known:
            try:
                answer = await client.workflow_service.describe_worker_deployment_version(asked)
                known = {queue.name for queue in answer.version_task_queues}
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(0.1)
    return known


async def make_current(client: Client, name: str, build: str, queues: set[str]) -> None:
    """What Temporal's worker controller does when a version serves its queues."""
    await served(client, name, build, queues)
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=name, build_id=build
    )
    await client.workflow_service.set_worker_deployment_current_version(request)


async def version_of(client: Client, order_id: str) -> str | None:
    """The version that carries an order for good; None when none does yet."""
    try:
        description = await client.get_workflow_handle(workflow_id(order_id)).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
    info = description.raw_description.workflow_execution_info.versioning_info
    is_pinned = info.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    return info.deployment_version.build_id if is_pinned else None


async def carriers(client: Client, order_id: str) -> tuple[set[str], list[str]]:
    """Who did the tasks of an order's workflow (`pid@host`), and why a task failed where one did.

    A task that was done while something new came, and is done again, is no failure.
    """
    names: set[str] = set()
    failures: list[str] = []
    async for event in client.get_workflow_handle(workflow_id(order_id)).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            names.add(event.workflow_task_completed_event_attributes.identity)
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            failed = event.workflow_task_failed_event_attributes
            if failed.cause != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND:
                cause = WorkflowTaskFailedCause.Name(failed.cause)
                failures.append(f"{cause}: {failed.failure.message}")
    return names, failures
