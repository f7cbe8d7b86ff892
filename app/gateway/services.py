"""What the routes work with. Built once, in `run`; nothing in it is global."""

from collections.abc import Mapping

import msgspec

from app.contracts import streams
from app.gateway.admission import Admissions
from app.gateway.auth import Keyring
from app.gateway.cached_orders import CachedOrders
from app.gateway.live import Live
from app.gateway.waiting import Watch
from app.infra.postgres.analytics import PostgresAnalytics
from app.infra.postgres.catalogue import PostgresCatalogue
from app.infra.postgres.customers import PostgresCustomers
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.intake import Intake
from app.infra.postgres.order_lists import PostgresOrderLists
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.webhook_deliveries import WebhookDeliveries
from app.infra.postgres.webhook_endpoints import WebhookEndpoints
from app.infra.redis.gate import Gate
from app.infra.redis.hints import Hints
from app.observability.health import Check
from app.replay.desk import Desk


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's means. `checks` are what readiness asks."""

    environment: str
    intake: Intake
    orders: PostgresOrders
    lists: PostgresOrderLists
    catalogue: PostgresCatalogue
    analytics: PostgresAnalytics
    customers: PostgresCustomers
    dead_letters: DeadLetters
    replays: Desk
    webhook_endpoints: WebhookEndpoints
    webhook_deliveries: WebhookDeliveries
    cached: CachedOrders
    keyring: Keyring
    admissions: Admissions
    gate: Gate
    watch: Watch
    live: Live
    hints: Hints
    webhook_secret: bytes
    checks: Mapping[str, Check]
    open_api: bytes = b""
    docs_page: bytes = b""

    def let_go(self) -> None:
        """Let everybody go who is held for long: the process is to stop."""
        self.watch.let_go()
        self.live.let_go()

    def hint_orders(self) -> None:
        """Say that workflows are called and events wait to be published; a lost hint costs a poll."""
        self.hints.publish(streams.hint_workflow_outbox(self.environment))
        self.hints.publish(streams.hint_event_outbox(self.environment))

    def hint_events(self) -> None:
        """Say that events wait to be published."""
        self.hints.publish(streams.hint_event_outbox(self.environment))
