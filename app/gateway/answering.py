"""`answer`: what is sent for a call of a route, whatever happens: who asks, may they, and then the route."""

from app.gateway import problems
from app.gateway.auth import authenticate
from app.gateway.bodies import ClientGone
from app.gateway.exchange import Call, Reply
from app.gateway.route import Route
from app.gateway.services import Services


async def answer(route: Route, services: Services, call: Call) -> Reply:
    """Authenticate, run the route, and turn every error into its problem."""
    try:
        if route.scope is not None:
            call.caller = await authenticate(services.keyring, call, route.scope)
            if not route.admits_itself:
                call.limits = await services.admissions.other(call.caller, call.method)
        return await route.run(services, call)
    except ClientGone:
        return Reply(499)
    except Exception as error:  # noqa: BLE001 - every error has an answer
        return problems.answer(call, error)
