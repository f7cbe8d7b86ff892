"""The ASGI application: the table of routes on Litestar, behind the edge.

Litestar finds the route, where the edge has not found a hot one already; everything else about a request is
plain functions over `Call` and `Reply`.
"""

from typing import TYPE_CHECKING, Any, cast

from litestar import Litestar, Request, Response
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from litestar.types import Scope as LitestarScope

from app.gateway import problems
from app.gateway.answering import answer
from app.gateway.edge import STATE, Edge
from app.gateway.exchange import Application, Call, Reply, send_reply
from app.gateway.hot import HotRoutes
from app.gateway.route import Route
from app.gateway.routes import ROUTES
from app.gateway.services import Services
from app.gateway.shedding import REQUESTS_MAX
from app.observability import tracing
from app.observability.access_log import AccessLog

if TYPE_CHECKING:
    from app.gateway.traces import RequestTraces


def application(services: Services, *, requests_max: int = REQUESTS_MAX) -> Edge:
    """The gateway, ready to be served; `requests_max` requests may be under way."""
    paths: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = route
    with tracing.unseen():
        inner = Litestar(
            route_handlers=[_handler(path, by_method, services) for path, by_method in paths.items()],
            exception_handlers={HTTPException: _of_router, Exception: _of_router},
            openapi_config=None,
            logging_config=None,
            request_max_body_size=None,
        )
    access_log = AccessLog()
    return Edge(
        cast("Application", inner),
        access_log,
        HotRoutes(services, access_log),
        requests_max=requests_max,
        traces=_traces(),
    )


def _traces() -> "RequestTraces | None":
    """What makes the spans of requests; None where nobody wants traces."""
    traces = tracing.active()
    if traces is None:
        return None
    from app.gateway.traces import RequestTraces  # noqa: PLC0415 - not even imported where nobody wants it

    return RequestTraces(traces)


def _handler(path: str, by_method: dict[str, Route], services: Services) -> HTTPRouteHandler:
    """Litestar's handler of one path: finds the route and sends what it answers."""

    async def handle(scope: LitestarScope) -> ASGIApp:
        call: Call = scope["state"][STATE]
        call.route = path
        call.parameters = scope["path_params"]
        route = by_method.get("GET" if call.method == "HEAD" else call.method)
        reply = allowed if route is None else await answer(route, services, call)

        async def respond(_: Any, __: Any, send: Any) -> None:  # noqa: ANN401 - two spellings of ASGI meet
            if reply.stream is not None:
                call.stream = reply.stream  # the edge goes on with it, when Litestar is done
                return
            await send_reply(send, reply)

        return respond

    names = sorted({*by_method, "OPTIONS", *(("HEAD",) if "GET" in by_method else ())})
    allowed = Reply(204, b"", ((b"allow", ", ".join(names).encode()),))
    methods = [HttpMethod(name) for name in names if name != "HEAD"]
    # The status is for its own handlers only: what we return sends its own.
    return HTTPRouteHandler(path.replace("}", ":str}"), http_method=methods, status_code=200)(handle)


def _of_router(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The problem that stands for what the router refused."""
    call: Call = request.scope["state"][STATE]
    if isinstance(error, HTTPException):
        known = [name for name in (error.headers or {}).get("allow", "").split(", ") if name]
        known += ["HEAD"] if "GET" in known else []
        given = ((b"allow", ", ".join(sorted(known)).encode()),) if known else ()
        reply = problems.of_status(call, error.status_code, given)
    else:
        reply = problems.answer(call, error)
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, status_code=reply.status, headers=headers, media_type=problems.MEDIA.decode())
