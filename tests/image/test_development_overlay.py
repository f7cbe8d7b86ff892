"""The containers of `manifests/overlays/dev` as they are written there, without a cluster around them.

Image, command, settings, user, read-only file system and memory are the manifests'; only addresses and ports
are this machine's, because the servers are the embedded ones.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.dev.stack import ports
from tests.architecture.rendered import Pod, environment, of_kind, pods, render
from tests.image.containers import LABEL, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

OVERLAY = "overlays/dev"
PORTS = {"8080": "gateway", "8081": "", "8090": "sandbox", "8025": "smtp"}
MODES = ("gateway", "worker", "consumer")


def secrets() -> dict[str, str]:
    """The overlay's own, for development."""
    found = {k: v for one in of_kind(render(OVERLAY), "Secret") for k, v in one["data"].items()}
    return {name: base64.b64decode(value).decode() for name, value in found.items()}


class Cluster:
    """Starts containers of the overlay's pods with addresses of this machine."""

    def __init__(self, engine: Engine, image: str, addresses: dict[str, str], data: Path) -> None:
        self.engine, self.image, self.addresses, self.data = engine, image, addresses, data
        self.ports = {name: ports.any_free() for name in (*MODES, "sandbox", "smtp")}
        self.pods: dict[str, Pod] = {pod.component: pod for pod in pods(render(OVERLAY))}
        self.started: list[str] = []

    def here(self, text: str) -> str:
        """An address of the cluster as this machine has it."""
        for name in ("sandbox:8090", "sandbox:8025"):
            text = text.replace(name, f"127.0.0.1:{self.ports[PORTS[name[-4:]]]}")
        text = text.replace("http://gateway/", f"http://127.0.0.1:{self.ports['gateway']}/")
        text = text.replace("0.0.0.0", "127.0.0.1")
        return str(self.ports[PORTS[text]]) if PORTS.get(text) else text

    def settings(self, container: dict[str, Any]) -> dict[str, str]:
        """What the container is told, as it would be on the cluster."""
        told = environment(render(OVERLAY), container)
        held = {k: v or secrets()[k] for k, v in told.items() if v is not None or k in secrets()}
        found = {k: self.addresses.get(k) or self.here(v) for k, v in held.items()}
        if "MODE" in found:
            name = "PORT" if found["MODE"] == "gateway" else "HEALTH_PORT"
            found |= {name: str(self.ports[found["MODE"]]), "LISTEN_HOST": "127.0.0.1"}
        return found

    async def run(self, container: dict[str, Any], *, to_its_end: bool) -> str:
        """Run a container; its id, or what it printed when it has ended well."""
        context, memory = container["securityContext"], container["resources"]["limits"]["memory"]
        assert context["readOnlyRootFilesystem"]
        flags = ["--rm"] if to_its_end else ["--detach"]
        flags += ["--network", "host", "--read-only", "--cap-drop", "ALL", "--label", LABEL]
        flags += ["--security-opt", "no-new-privileges", "--user", "10001:10001"]
        flags += ["--memory", memory.lower().removesuffix("i")]
        flags += [part for k, v in self.settings(container).items() for part in ("--env", f"{k}={v}")]
        mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
        flags += ["--volume", f"{self.data}:{mounts['data']}"] if "data" in mounts else []
        image = self.image + container["image"].removeprefix("holdfast").partition(":")[0]
        arguments = [self.here(part) for part in container.get("args", [])]
        _, said = await self.engine.run("run", *flags, image, *arguments)
        if not to_its_end:
            self.started.append(said.split()[-1])
        return said

    async def is_ready(self, name: str, path: str) -> bool:
        """Whether a probe of the pod is answered with 200."""
        async with httpx.AsyncClient() as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{self.ports[name]}{path}")
            except httpx.HTTPError:
                return False
            return answer.status_code == 200


@pytest.fixture
async def cluster(
    engine: Engine, image: str, empty_database_url: str, redis_url: str, temporal_address: str, tmp_path: Path
) -> AsyncIterator[Cluster]:
    """The overlay's containers, none of them started."""
    addresses = {
        "DATABASE_URL": empty_database_url,
        "REDIS_URL": redis_url,
        "TEMPORAL_ADDRESS": temporal_address,
        "DATABASE_CONNECTIONS_MAX": "90",
    }
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)  # a volume that its user may write to
    cluster = Cluster(engine, image, addresses, data)
    try:
        yield cluster
    finally:
        for container in cluster.started:
            await engine.run("rm", "--force", container, check=False)


@asynccontextmanager
async def client(cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the gateway with the overlay's own key."""
    headers = {"Authorization": f"Bearer {secrets()['HOLDFAST_DEV_API_KEY']}"}
    base = f"http://127.0.0.1:{cluster.ports['gateway']}"
    async with httpx.AsyncClient(base_url=base, headers=headers) as http:
        yield http


async def test_the_development_overlay_carries_an_order_to_its_end(cluster: Cluster) -> None:
    """Migrated and seeded by its Jobs, ready by its probes, paid and delivered, ended in order."""
    job = cluster.pods["migrate"].spec["containers"][0]
    waiting = asyncio.create_task(
        cluster.run(cluster.pods["gateway"].spec["initContainers"][0], to_its_end=True)
    )
    assert "applied" in await cluster.run(job, to_its_end=True)
    await waiting
    assert "development API key" in await cluster.run(
        cluster.pods["seed"].spec["containers"][0], to_its_end=True
    )
    for name in ("sandbox", *MODES):
        container = cluster.pods[name].spec["containers"][0]
        await cluster.run(container, to_its_end=False)
        async with asyncio.timeout(60):
            while not await cluster.is_ready(name, container["readinessProbe"]["httpGet"]["path"]):
                await asyncio.sleep(0.1)
    order = {
        "customer_id": "customer",
        "currency": "USD",
        "lines": [{"sku": "tea-earl-grey", "quantity": 2}],
        "payment_method": "pm_card_visa",
    }
    async with client(cluster) as http:
        placed = await http.post("/v1/orders", json=order, headers={"Idempotency-Key": "one"})
        assert placed.status_code == 202, placed.text
        async with asyncio.timeout(60):
            while (found := (await http.get(placed.headers["location"])).json())["status"] != "completed":
                await asyncio.sleep(0.1)
    assert found["payment"]["captured"] == {"amount": 2934, "currency": "USD"}
    for container_id in reversed(cluster.started):
        await cluster.engine.run("stop", "--time", "40", container_id)
        state = (await cluster.engine.inspect(container_id))["State"]
        assert state["ExitCode"] == 0
