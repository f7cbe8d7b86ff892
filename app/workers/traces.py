"""Traces through Temporal: an order's traceparent goes with its workflow, and from there to every step.

It travels in a header, `HEADER`, which Temporal keeps with the workflow and compares with nothing: a workflow
that was begun without one goes on without, and one that has one runs on workers that know nothing of it. In a
workflow nothing is made but the id of its own span, from the id of the run, so every replay finds the same;
spans are handed to the loop outside, and only where nothing is replayed. If the process dies here, a span is
lost, or the first one of a workflow is sent twice under one id.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

from temporalio import activity, client, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ContinueAsNewInput,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle, ContinueAsNewError

from app.observability import tracing
from app.observability.traces import Traces, context_of

HEADER: Final = "traceparent"
_EXTERN: Final = "__holdfast_note"
_METADATA: Final = {"encoding": b"binary/plain"}
_NS: Final = 1_000_000_000


class Headers(client.Interceptor, worker.Interceptor):
    """Give it to the client: workers made with that client have it, too."""

    def __init__(self, traces: Traces) -> None:
        """Make spans in `traces`, on the loop that runs now."""
        self._traces = traces
        self._loop = asyncio.get_running_loop()

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        """Wrap the starts of workflows."""
        return _Client(next)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap every activity."""
        return _Activity(next)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """Wrap every workflow, which reaches us by a function from outside of it."""
        extern: dict[str, Callable[..., Any]] = {_EXTERN: self._note}
        input.unsafe_extern_functions.update(extern)
        return _Workflow

    def _note(
        self,
        name: str,
        parent: str,
        began: float | None,
        attributes: tracing.Attributes,
        **more: Any,  # noqa: ANN401 - the rest of what `Traces.note` takes
    ) -> None:
        """Called in a workflow's thread, which may be interrupted anywhere: it takes no lock."""
        context = context_of(parent)
        if context is None:
            return
        began_ns = time.time_ns() if began is None else int(began * _NS)
        telling = partial(self._traces.note, name, "internal", context, attributes, began_ns=began_ns, **more)
        with suppress(RuntimeError):  # the loop has ended, and who would wait for a span?
            self._loop.call_soon_threadsafe(telling)


class _Client(client.OutboundInterceptor):
    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        here = tracing.here()
        if here is not None:
            input.headers = _with(input.headers, here)
        return await super().start_workflow(input)


class _Workflow(WorkflowInboundInterceptor):
    """What the workflow was begun with, and the span under which its steps are."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self.given: str | None = None
        self.own: str | None = None
        super().init(_Outbound(outbound, self))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: ANN401 - as the workflow
        self.given = _of(input.headers)
        if self.given is None or context_of(self.given) is None:
            return await super().execute_workflow(input)
        info = workflow.info()
        span_id = _span_id(info.run_id)
        self.own = f"{self.given[:36]}{span_id:016x}{self.given[52:]}"
        self._note(f"run {info.workflow_type}", self.given, info.start_time.timestamp(), span_id=span_id)
        try:
            answer = await super().execute_workflow(input)
        except ContinueAsNewError:
            self._note(f"continue {info.workflow_type} as new", self.own, None)
            raise
        except Exception as error:
            self._note(f"end {info.workflow_type}", self.own, None, failed=type(error).__name__)
            raise
        self._note(f"end {info.workflow_type}", self.own, None)
        return answer

    def _note(self, name: str, parent: str, began: float | None, **more: Any) -> None:  # noqa: ANN401
        if not workflow.unsafe.is_replaying():
            note = workflow.extern_functions()[_EXTERN]
            note(name, parent, began, {"holdfast.run_id": workflow.info().run_id}, **more)


class _Outbound(WorkflowOutboundInterceptor):
    """Gives the steps their header."""

    def __init__(self, next: WorkflowOutboundInterceptor, inbound: _Workflow) -> None:
        super().__init__(next)
        self._inbound = inbound

    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
        if self._inbound.own is not None:
            input.headers = _with(input.headers, self._inbound.own)
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> ActivityHandle[Any]:
        if self._inbound.own is not None:
            input.headers = _with(input.headers, self._inbound.own)
        return super().start_local_activity(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        if self._inbound.given is not None:
            input.headers = _with(input.headers, self._inbound.given)
        super().continue_as_new(input)


class _Activity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: ANN401 - as the activity
        parent = _of(input.headers)
        if parent is None:
            return await super().execute_activity(input)
        info = activity.info()
        attributes: dict[tracing.Attribute, tracing.Value] = {
            "holdfast.attempt": info.attempt,
            "holdfast.queue": info.task_queue,
        }
        asked = input.args[0] if input.args else None
        order_id, correlation_id = getattr(asked, "order_id", None), getattr(asked, "correlation_id", None)
        if order_id is not None:
            attributes["holdfast.order_id"] = order_id
        if correlation_id is not None:
            attributes["holdfast.correlation_id"] = correlation_id
        with tracing.step(info.activity_type, "consumer", parent, attributes) as span:
            try:
                return await super().execute_activity(input)
            except ApplicationError as error:
                span.fail(error.type or type(error).__name__)
                raise


def _span_id(run_id: str) -> int:
    """The id of the span of a run; never zero."""
    digest = hashlib.blake2b(run_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1


def _with(headers: Mapping[str, Payload], traceparent: str) -> dict[str, Payload]:
    return {**headers, HEADER: Payload(metadata=_METADATA, data=traceparent.encode())}


def _of(headers: Mapping[str, Payload]) -> str | None:
    given = headers.get(HEADER)
    return None if given is None else given.data.decode("latin-1")
