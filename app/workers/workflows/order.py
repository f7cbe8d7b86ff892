"""OrderWorkflow: carries one order to its end, through any outage.

`run` reads like the product's requirements. Every step is an idempotent activity on the queue of its service;
PostgreSQL decides what a step may do, so a workflow that is started again from the beginning (its history
lost, or grown too long) walks over what is done without doing it twice. What a step may have done is
registered for undoing before the step runs.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from app.contracts import temporal as t
    from app.domain.events import Reason
    from app.domain.order import FINAL, Status
    from app.workers import policies

STATUS = SearchAttributeKey.for_keyword("OrderStatus")
WAITING_ON = SearchAttributeKey.for_keyword("WaitingOn")
OPERATOR = "operator"
EVERYTHING = [t.RELEASE_STOCK, t.VOID_PAYMENT, t.CANCEL_SHIPMENTS]


class Stopped(Exception):
    """The order does not go on: somebody cancelled it (no reason), or it cannot be carried out."""

    def __init__(self, reason: Reason | None) -> None:
        super().__init__()
        self.reason = reason


@workflow.defn(name=t.ORDER_WORKFLOW)
class OrderWorkflow:
    """One order, from accepted to its final status."""

    @workflow.init
    def __init__(self, order: t.OrderInput) -> None:
        """Nothing has happened yet that this workflow knows of."""
        self._order = order
        self._progress = t.Progress(Status.ACCEPTED, 1, 0, ())
        self._delivered: set[str] = set()
        self._cancel_requested = False
        self._retry_requested = False
        self._step: str | None = None  # the step under way
        self._steps = 0  # how many were begun
        self._step_began = 0.0  # Unix seconds
        self._running: workflow.ActivityHandle[t.Progress] | None = None  # the step a cancellation may stop
        self._waiting_on: str | None = None
        self._is_late = False  # nothing is quick about this order any more

    @workflow.run
    async def run(self, _: t.OrderInput) -> str:
        """Carry the order to its end; its final status."""
        watch = asyncio.create_task(self._watch())
        carried = asyncio.create_task(self._carry())
        cancelling: asyncio.Task[None] | None = None
        while not carried.done():
            try:
                await asyncio.shield(carried)
            except asyncio.CancelledError:
                # Somebody cancelled the workflow, not the order: cancel the order, if it is not too late.
                cancelling = cancelling or asyncio.create_task(self._cancel_order())
            except Exception:  # noqa: BLE001 - told below
                break
        # Not in a `finally`: where a worker forgets a workflow, nothing can be waited for any more.
        watch.cancel()
        await workflow.wait([watch])  # nothing may follow the workflow's end
        carried.result()
        self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._progress.status

    async def _carry(self) -> None:
        undo: list[str] = []
        try:
            undo.append(t.RELEASE_STOCK)
            await self._forward(t.RESERVE_STOCK)
            if self._progress.to_pay:
                undo.append(t.VOID_PAYMENT)
                await self._forward(t.AUTHORIZE_PAYMENT)
            undo.append(t.CANCEL_SHIPMENTS)
            await self._forward(t.BOOK_SHIPMENTS)  # the last booking confirms the order
            await self._forward(t.RELEASE_SHIPMENTS)  # dispatched: there is no way back
            self._stop_unless_dispatched()
        except Stopped as stopped:
            await self._undo(undo, stopped.reason)
            return
        if self._progress.to_pay:
            await self._do(t.CAPTURE_PAYMENT)
        await self._follow_parcels()  # the last of capture and deliveries completes the order

    def _stop_unless_dispatched(self) -> None:
        """An order that was being given up when its workflow's history was lost is still given up."""
        if self._progress.status not in {Status.DISPATCHED, Status.COMPLETED}:
            raise Stopped(Reason("given_up", "The order was being given up before its workflow began anew."))

    async def _undo(self, undo: list[str], reason: Reason | None) -> None:
        """Undo what was or may have been done, last first, then close the order.

        An order that cannot be closed then holds what an earlier life of this workflow did (Temporal lost it,
        or somebody ended it): everything is undone.
        """
        while self._progress.status not in FINAL:  # an order may be rejected on the spot: nothing was done
            for step in reversed(undo):
                await self._do(step)
            await self._do(t.CLOSE_ORDER, reason)
            if undo == EVERYTHING and self._progress.status not in FINAL:
                await self._call_operator(t.CLOSE_ORDER, "something is still held", may_stop=False)
            undo = EVERYTHING

    async def _follow_parcels(self) -> None:
        """Wait until the carrier has delivered everything; ask it when it has been silent for long."""
        await workflow.wait_condition(lambda: self._is_delivered() or self._is_late)
        if not self._is_delivered():
            self._show()
        silence = policies.TRACK_FIRST
        while not self._is_delivered():
            try:
                await workflow.wait_condition(self._is_delivered, timeout=silence)
            except TimeoutError:
                await self._do(t.TRACK_SHIPMENTS)
                silence = min(silence * 2, policies.TRACK_MAX)
                if workflow.info().is_continue_as_new_suggested():
                    await workflow.wait_condition(workflow.all_handlers_finished)
                    workflow.continue_as_new(self._order)
        self._progress = t.Progress(Status.COMPLETED, self._progress.version, self._progress.to_pay, ())

    def _is_delivered(self) -> bool:
        return self._delivered.issuperset(self._progress.undelivered)

    async def _forward(self, step: str) -> None:
        """A step that a cancellation may stop. Raises Stopped when the order does not go on."""
        await self._do(step, may_stop=True)
        if self._progress.reason or self._progress.status in {Status.CANCELLING, *FINAL} - {Status.COMPLETED}:
            raise Stopped(self._progress.reason)

    async def _do(self, step: str, reason: Reason | None = None, *, may_stop: bool = False) -> None:
        """Run a step to its end; one that fails for good waits for the operator and is run again."""
        while True:
            if may_stop and self._cancel_requested:
                raise Stopped(None)
            self._begin(step)
            try:
                running = self._start(step, reason)
                self._running = running if may_stop else None
                self._progress = await running
                return
            except ActivityError as error:
                if may_stop and self._cancel_requested and is_cancelled_exception(error):
                    raise Stopped(None) from None
                await self._call_operator(step, str(error.cause or error), may_stop=may_stop)
            finally:
                self._running = None
                self._step = None

    def _start(self, step: str, reason: Reason | None) -> workflow.ActivityHandle[t.Progress]:
        policy = policies.STEPS[step]
        return workflow.start_activity(
            step,
            t.Step(self._order.order_id, self._order.correlation_id, reason),
            task_queue=policy.queue,
            result_type=t.Progress,
            start_to_close_timeout=policy.start_to_close,
            heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
            retry_policy=policies.RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    def _begin(self, step: str) -> None:
        self._step = step
        self._steps += 1
        self._step_began = workflow.time()

    async def _call_operator(self, step: str, error: str, *, may_stop: bool) -> None:
        """A step failed for good: say so, and wait until somebody has mended it (signal `retry`)."""
        self._retry_requested = False
        alert = t.Alert(self._order.order_id, self._order.correlation_id, step, error)
        alarm = workflow.start_activity(
            t.ALERT_OPERATOR,
            alert,
            task_queue=t.QUEUE_NOTIFICATIONS,
            start_to_close_timeout=policies.BOOKKEEPING_TIMEOUT,
            retry_policy=policies.RETRY,
        )
        await self._say_until(
            OPERATOR, lambda: self._retry_requested or (may_stop and self._cancel_requested)
        )
        if not alarm.done():
            alarm.cancel()
        self._waiting_on = None

    async def _cancel_order(self) -> None:
        answer = await workflow.execute_activity(
            t.CANCEL_ORDER,
            t.Step(self._order.order_id, self._order.correlation_id),
            result_type=t.Progress,
            start_to_close_timeout=policies.STEPS[t.CANCEL_ORDER].start_to_close,
            retry_policy=policies.RETRY,
        )
        if answer.status == Status.CANCELLING:
            self._stop_forward_steps()

    def _stop_forward_steps(self) -> None:
        self._cancel_requested = True
        if self._running is not None:
            self._running.cancel()

    async def _watch(self) -> None:
        """Notice a step that takes long, and say what the order waits for until it is over.

        One timer serves a quick order's whole life; only slow ones pay for more.
        """
        await workflow.sleep(policies.QUICK)
        self._is_late = True
        while True:
            await workflow.wait_condition(lambda: self._step is not None)
            seen = self._steps
            patience = policies.PATIENCE - timedelta(seconds=workflow.time() - self._step_began)
            if patience > timedelta(0):
                await workflow.sleep(patience)
            if self._step is None or self._steps != seen:
                continue
            queue = policies.STEPS[self._step].queue
            if queue in policies.WAITS_FOR and self._waiting_on is None:
                await self._say_until(queue, self._has_moved_past(seen))
            await workflow.wait_condition(self._has_moved_past(seen))
            self._waiting_on = None
            self._show()

    def _has_moved_past(self, seen: int) -> Callable[[], bool]:
        return lambda: self._step is None or self._steps != seen

    async def _say_until(self, waiting_on: str, is_over: Callable[[], bool]) -> None:
        """Say what the order waits for, and return when that is over; not of one that has just moved."""
        self._waiting_on = waiting_on
        self._show()
        said = False
        while not is_over():
            said = said or await self._say_waiting(waiting_on)
            try:
                await workflow.wait_condition(is_over, timeout=None if said else policies.QUICK)
            except TimeoutError:
                continue

    async def _say_waiting(self, waiting_on: str) -> bool:
        waiting = t.Waiting(self._order.order_id, self._order.correlation_id, waiting_on)
        try:
            said: bool = await workflow.execute_local_activity(
                t.SET_WAITING,
                waiting,
                schedule_to_close_timeout=policies.BOOKKEEPING_TIMEOUT,
                result_type=bool,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):  # this very task was cancelled: it ends as such, not as failed
                raise asyncio.CancelledError from None
            return False
        return said

    def _show(self) -> None:
        """Let Temporal's lists show where the order stands."""
        waiting = WAITING_ON.value_set(self._waiting_on) if self._waiting_on else WAITING_ON.value_unset()
        workflow.upsert_search_attributes([STATUS.value_set(self._progress.status), waiting])

    @workflow.signal(name=t.SIGNAL_CANCEL)
    def cancel_requested(self) -> None:
        """The order is `cancelling` in PostgreSQL: whatever may be stopped stops."""
        self._stop_forward_steps()

    @workflow.signal(name=t.SIGNAL_DELIVERED)
    def shipment_delivered(self, delivered: t.Delivered) -> None:
        """A delivery is on record in PostgreSQL."""
        self._delivered.add(delivered.fulfilment_id)

    @workflow.signal(name=t.SIGNAL_RETRY)
    def retry(self) -> None:
        """The operator has mended what made a step fail for good."""
        self._retry_requested = True

    @workflow.query(name=t.QUERY_STATUS)
    def status(self) -> t.StatusAnswer:
        """As far as this workflow knows."""
        return t.StatusAnswer(self._progress.status, self._step, self._waiting_on)
