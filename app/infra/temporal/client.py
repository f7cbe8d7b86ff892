"""A client of Temporal, from the settings: plain in development, TLS or an API key elsewhere."""

from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError, TLSConfig

from app.config import Settings
from app.infra.temporal.converter import DATA_CONVERTER


async def connect(settings: Settings) -> Client:
    """A client of the namespace. Raises RuntimeError or RPCError when Temporal cannot be reached."""
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=DATA_CONVERTER,
        tls=_tls(settings),
        api_key=settings.temporal_api_key,
    )


async def is_well(client: Client) -> bool:
    """Whether Temporal's frontend answers."""
    try:
        return await client.service_client.check_health()
    except RPCError:
        return False


def _tls(settings: Settings) -> TLSConfig | bool:
    if settings.temporal_tls_cert and settings.temporal_tls_key:
        certificate = Path(settings.temporal_tls_cert).read_bytes()
        key = Path(settings.temporal_tls_key).read_bytes()
        return TLSConfig(client_cert=certificate, client_private_key=key)
    return settings.temporal_api_key is not None
