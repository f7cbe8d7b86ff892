"""F1: a workflow of regular activities that do nothing, on the platform's Temporal, as lean as it goes.

Worker, options, messages, timeouts and retry policies are the platform's own; workflows are started from the
worker's process, eagerly, as the platform's starter does. Nobody polls for results: the workflow itself tells
the driver beside it that it is over, which costs nothing.
"""

import asyncio
import itertools
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, UnsandboxedWorkflowRunner, Worker

from app.contracts import temporal as t
from app.infra.temporal.client import connect
from app.workers import policies
from app.workers.run import ACTIVITIES_MAX, POLLERS, WORKFLOWS_CACHED_MAX
from bench.child import Run
from bench.samples import Sample

WORKFLOW = "Regular"
ACTIVITY = "nothing"


class Wanted(msgspec.Struct, frozen=True):
    """How many activities one after the other."""

    id: str
    steps: int


_tell_over: dict[str, Callable[[], object]] = {}
_steps: dict[str, list[float]] = {}


@activity.defn(name=ACTIVITY)
async def nothing(step: t.Step) -> t.Progress:
    """Do nothing, and note when."""
    _steps[step.order_id].append(time.perf_counter())
    return t.Progress("accepted", 1, 1, ())


@workflow.defn(name=WORKFLOW)
class Regular:
    """So many activities, one after the other."""

    @workflow.run
    async def run(self, wanted: Wanted) -> None:
        """Run them all."""
        for _ in range(wanted.steps):
            await workflow.execute_activity(
                ACTIVITY,
                t.Step(wanted.id, wanted.id),
                result_type=t.Progress,
                start_to_close_timeout=policies.STEPS[t.RESERVE_STOCK].start_to_close,
                heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
                retry_policy=policies.RETRY,
            )
        _tell_over[wanted.id]()


class _Carrier:
    """Starts workflows and waits for their ends."""

    def __init__(self, client: Client, queue: str, steps: int) -> None:
        self._client = client
        self._queue = queue
        self._steps = steps
        self._names = (f"{queue}-{number}" for number in itertools.count())

    async def carry(self) -> list[float]:
        """One workflow from its start to its end; when each activity ran, in milliseconds since the start."""
        name = next(self._names)
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        # Workflows run in threads of the worker's.
        _tell_over[name], _steps[name] = lambda: loop.call_soon_threadsafe(over.set), []
        began = time.perf_counter()
        await self._client.start_workflow(
            WORKFLOW,
            Wanted(name, self._steps),
            id=name,
            task_queue=self._queue,
            request_eager_start=True,
            task_timeout=policies.WORKFLOW_TASK_TIMEOUT,
        )
        await over.wait()
        del _tell_over[name]
        return [1000 * (at - began) for at in _steps.pop(name)]


@asynccontextmanager
async def _carrier(address: str, namespace: str, steps: int) -> AsyncIterator[_Carrier]:
    client = await connect(address, namespace, tls_cert=None, tls_key=None, api_key=None)
    queue = f"regular-{uuid.uuid4().hex[:8]}"
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[Regular],
        activities=[nothing],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=WORKFLOWS_CACHED_MAX,
        max_concurrent_activities=ACTIVITIES_MAX,
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
    )
    async with worker:
        yield _Carrier(client, queue, steps)


@asynccontextmanager
async def many(address: str, namespace: str, steps: int, in_flight: int) -> AsyncIterator[Run]:
    """So many workflows in flight; the time is over when the last has ended."""
    async with _carrier(address, namespace, steps) as carrier:

        async def run(seconds: float) -> Sample:
            cpu, began = time.process_time(), time.perf_counter()
            done = 0

            async def one_after_another() -> None:
                nonlocal done
                while time.perf_counter() - began < seconds:
                    await carrier.carry()
                    done += 1

            await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
            wall_s = time.perf_counter() - began
            return Sample(done, wall_s, {"worker": time.process_time() - cpu})

        yield run


@asynccontextmanager
async def one_at_a_time(address: str, namespace: str, steps: int, confirmed: int) -> AsyncIterator[Run]:
    """The next begins when the last has ended; `p50_ms` is until the activity number `confirmed` was run."""
    async with _carrier(address, namespace, steps) as carrier:

        async def run(seconds: float) -> Sample:
            began = time.perf_counter()
            took: list[float] = []
            while time.perf_counter() - began < seconds or not took:
                took.append((await carrier.carry())[confirmed - 1])
            values = {"p50_ms": statistics.median(took), "max_ms": max(took)}
            return Sample(len(took), time.perf_counter() - began, values=values)

        yield run
