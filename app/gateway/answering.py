"""`answer`: what is sent for a call of a route, whatever happens."""

from app.gateway import problems
from app.gateway.auth import authenticate
from app.gateway.bodies import ClientGone
from app.gateway.exchange import Call, Reply
from app.gateway.routes import Route
from app.gateway.services import Services


async def answer(route: Route, services: Services, call: Call) -> Reply:
    """Authenticate, run the route, and turn every error into its problem."""
    try:
        if route.scope is not None:
            call.caller = await authenticate(services.keyring, call, route.scope)
        return await route.run(services, call)
    except ClientGone:
        return Reply(499)
    except Exception as error:  # noqa: BLE001 - every error has an answer
        return problems.answer(call, error)
