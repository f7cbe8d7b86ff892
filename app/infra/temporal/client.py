"""A client of Temporal: plain in development, with TLS or an API key elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client, Interceptor
from temporalio.service import RPCError, TLSConfig

from app.infra.temporal.converter import DATA_CONVERTER


async def connect(
    address: str,
    namespace: str,
    *,
    tls_cert: str | None,
    tls_key: str | None,
    api_key: str | None,
    interceptors: Sequence[Interceptor] = (),
) -> Client:
    """A client of the namespace; `tls_cert` and `tls_key` name PEM files. Its workers are intercepted, too.

    Raises RuntimeError or RPCError when Temporal cannot be reached.
    """
    return await Client.connect(
        address,
        namespace=namespace,
        data_converter=DATA_CONVERTER,
        tls=_tls(tls_cert, tls_key) or api_key is not None,
        api_key=api_key,
        interceptors=interceptors,
    )


async def is_well(client: Client) -> bool:
    """Whether Temporal's frontend answers."""
    try:
        return await client.service_client.check_health()
    except RPCError:
        return False


def _tls(cert: str | None, key: str | None) -> TLSConfig | None:
    if not cert or not key:
        return None
    return TLSConfig(client_cert=Path(cert).read_bytes(), client_private_key=Path(key).read_bytes())
