"""What the manifests tell the program is what the program understands, and what they ask of it is there."""

import base64
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app import config
from app.__main__ import COMMANDS
from app.contracts import streams
from app.contracts import temporal as t
from app.dev.stack.temporal import ATTRIBUTES
from app.gateway.routes import ROUTES
from app.observability import health, metrics
from app.values import QUEUES
from tests.architecture.rendered import (
    COLLECTOR,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    Object,
    combinations,
    environment,
    is_ours,
    named,
    of_kind,
    pods,
    render,
    selects,
    tool,
)

DOCUMENTED = set(
    re.findall(r"`([A-Z][A-Z_0-9]+)`", (ROOT / "docs/CONFIGURATION.md").read_text(encoding="utf-8"))
)
OF_THE_BUCKET = set(re.findall(r"`(AWS_[A-Z_]+)`", (ROOT / "docs/ARCHIVE.md").read_text(encoding="utf-8")))
"""What the store of archives reads by itself."""
DOCUMENTED |= OF_THE_BUCKET
KNOWN = {setting.name for setting in config.SETTINGS} | {"HOLDFAST_DEV_API_KEY"} | OF_THE_BUCKET
FROM_THE_CONTROLLER = {"TEMPORAL_DEPLOYMENT_NAME": "x/worker", "TEMPORAL_WORKER_BUILD_ID": "1"}
"""What Temporal's worker controller adds to the pods of a WorkerDeployment."""
PROBES = {"/livez", "/readyz", "/startupz"}


def secrets(objects: tuple[Object, ...], overlay: str) -> dict[str, str]:
    """Values in place of what an environment's Secrets hold."""
    if overlay == "dev":
        return {k: v for one in of_kind(objects, "Secret") for k, v in decoded(one).items()}
    return {
        "DATABASE_URL": "postgresql://u:p@db/x",
        "REDIS_URL": "redis://:p@redis-primary.redis:6379/0",
        "STRIPE_API_KEY": "sk_live_x" if overlay == "production" else "sk_test_x",
        "CARRIER_WEBHOOK_SECRET": "x",
        "SMTP_URL": "smtps://u:p@mail.example.com:465",
        "TEMPORAL_API_KEY": "x",
    }


def decoded(secret: Object) -> dict[str, str]:
    """The values of a Secret."""
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


@pytest.mark.parametrize(("overlay", "components"), list(combinations()), ids=str)
def test_every_mode_takes_what_it_is_told(overlay: str, components: tuple[str, ...]):
    """The program's own reader of settings reads each container's environment, as it would at its start."""
    objects = render(f"overlays/{overlay}", *components)
    told = 0
    for pod in pods(objects):
        for container in pod.containers:
            if is_ours(container):
                given = environment(objects, container)
                assert set(given) <= KNOWN & DOCUMENTED, named(pod.owner)
                held = secrets(objects, overlay)  # what is optional may be missing
                full = {k: v or held[k] for k, v in given.items() if v is not None or k in held}
                if "MODE" in full:
                    assert set(FROM_THE_CONTROLLER) <= KNOWN & DOCUMENTED
                    extra = FROM_THE_CONTROLLER if pod.owner["kind"] == "WorkerDeployment" else {}
                    settings = config.load(full["MODE"], full | extra)
                    assert settings.environment == overlay
                    told += 1
    assert told >= 3


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_writes_knows_which_environment_it_is(overlay: str):
    """A Job that is pointed at another environment's database leaves it alone."""
    objects = render(f"overlays/{overlay}", *(() if overlay == "dev" else ("archive",)))
    jobs = [pod for pod in pods(objects) if pod.owner["kind"] in {"Job", "CronJob"}]
    assert jobs
    for pod in jobs:
        assert environment(objects, pod.spec["containers"][0])["ENVIRONMENT"] == overlay, named(pod.owner)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_in_a_configmap_is_known(overlay: str):
    """A key that nobody reads is a promise that nobody keeps."""
    for one in of_kind(render(f"overlays/{overlay}"), "ConfigMap"):
        if one["metadata"]["name"] in {"holdfast-dashboards", "holdfast-alert-rules"}:
            continue  # files for others to read
        assert set(one["data"]) <= KNOWN & DOCUMENTED, named(one)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_that_is_needed_is_brought(overlay: str):
    """By a Secret in development, by the vault elsewhere; only what may be missing is optional."""
    objects = render(f"overlays/{overlay}")
    brought = {one["metadata"]["name"] for one in of_kind(objects, "Secret")}
    brought |= {one["spec"]["target"]["name"] for one in of_kind(objects, "ExternalSecret")}
    for pod in pods(objects):
        for container in pod.containers:
            for entry in container.get("env", []):
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                if reference and not reference.get("optional"):
                    assert reference["name"] in brought, (named(pod.owner), entry["name"])
                    if is_ours(container):
                        assert reference["key"] == entry["name"]


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_no_secret_is_in_the_repository(overlay: str):
    """Only references, but in development."""
    assert of_kind(render(f"overlays/{overlay}"), "Secret") == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_command_is_in_the_image_that_is_told_to_run_it(overlay: str):
    """Commands of development are in the sandbox's image only, as far as its build copies them."""
    copied = (ROOT / "image/install.sh").read_text(encoding="utf-8")
    for pod in pods(render(f"overlays/{overlay}")):
        for container in pod.containers:
            if is_ours(container) and "args" in container:
                module = COMMANDS[container["args"][0]][0].partition(":")[0]
                if module.startswith("app.dev."):
                    assert "holdfast-sandbox" in container["image"]
                    part = module.split(".")[2]
                    names = (f"/source/app/dev/{part} ", f"/source/app/dev/{part}.py ")
                    assert any(name in copied for name in names), module


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_environment_has_its_own_names(overlay: str):
    """Namespace, Temporal namespace and keys in Redis carry the environment's name."""
    objects = render(f"overlays/{overlay}")
    data = {k: v for one in of_kind(objects, "ConfigMap") for k, v in one["data"].items()}
    assert data["ENVIRONMENT"] == overlay
    assert data["TEMPORAL_NAMESPACE"] == f"holdfast-{overlay}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_there_is(overlay: str):
    """Each mode has all three, on a port that it opens, and liveness asks the process alone."""
    objects = render(f"overlays/{overlay}")
    modes = 0
    for pod in pods(objects):
        container = pod.spec["containers"][0]
        told = environment(objects, container)
        if "MODE" not in told:
            continue
        modes += 1
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        opened = told["PORT"] if told["MODE"] == "gateway" else told["HEALTH_PORT"]
        wanted = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
        for probe, path in wanted.items():
            asked = container[probe]["httpGet"]
            assert asked["path"] == path
            assert ports[asked["port"]] == int(opened or 0)
    assert modes == 3


def test_the_probes_are_those_that_the_program_answers():
    """The gateway by its routes, the others by their own few lines."""
    routes = {route.path for route in ROUTES}
    assert routes >= PROBES | {"/metrics"}
    text = Path(health.__file__).read_text(encoding="utf-8")
    assert all(f'"{path}"' in text for path in PROBES | {"/metrics"})


def exposed(objects: tuple[Object, ...]) -> set[str]:
    """The paths that come in from outside."""
    found = set()
    for route in of_kind(objects, "HTTPRoute"):
        found |= {m["path"]["value"] for rule in route["spec"]["rules"] for m in rule["matches"]}
    for ingress in of_kind(objects, "Ingress"):
        found |= {path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]}
    return found


@pytest.mark.parametrize("components", [(), ("ingress",)], ids=str)
def test_callers_reach_every_route_and_no_probe(components: tuple[str, ...]):
    """What is for operators is not for everybody."""
    paths = exposed(render("overlays/production", *components))
    for route in ROUTES:
        is_reachable = any(route.path == path or route.path.startswith(f"{path}/") for path in paths)
        assert is_reachable == (route.path not in PROBES | {"/metrics"}), route.path


def test_the_gateway_is_scaled_by_metrics_that_it_serves():
    """A name that nobody serves scales nothing."""
    scaler = of_kind(render("overlays/production"), "HorizontalPodAutoscaler")[0]
    asked = {m["pods"]["metric"]["name"] for m in scaler["spec"]["metrics"] if m["type"] == "Pods"}
    assert asked == {metrics.HTTP_IN_FLIGHT.describe()[0].name}
    assert metrics.HTTP_IN_FLIGHT in metrics._SERVED["gateway"]


@pytest.mark.parametrize("components", [(), ("worker-queues", "worker-queues-keda")], ids=str)
def test_the_worker_is_scaled_by_its_queues(components: tuple[str, ...]):
    """Each queue once, at the Temporal and in the namespace that the worker is told."""
    objects = render("overlays/production", *components)
    scalers = [s for s in of_kind(objects, "ScaledObject") if s["metadata"]["name"].startswith("worker")]
    triggers = [trigger["metadata"] for s in scalers for trigger in s["spec"]["triggers"]]
    assert sorted(trigger["taskQueue"] for trigger in triggers) == sorted(QUEUES)
    assert {t.QUEUE_ORDERS} == {x["taskQueue"] for x in triggers if "workflow" in x["queueTypes"]}
    told = next(c["data"] for c in of_kind(objects, "ConfigMap") if "TEMPORAL_ADDRESS" in c["data"])
    assert {trigger["endpoint"] for trigger in triggers} == {told["TEMPORAL_ADDRESS"]}
    assert {trigger["namespace"] for trigger in triggers} == {told["TEMPORAL_NAMESPACE"]}


def test_the_consumer_is_scaled_by_every_group_and_shard():
    """By the names that the program gives streams and groups; never more consumers than shards."""
    objects = render("overlays/production")
    told = {k: v for one in of_kind(objects, "ConfigMap") for k, v in one["data"].items()}
    shards = int(told["EVENT_SHARDS"])
    groups = [value for name, value in vars(streams).items() if name.startswith("GROUP_")]
    wanted = {(streams.stream(told["ENVIRONMENT"], n), group) for n in range(shards) for group in groups}
    scaler = next(s for s in of_kind(objects, "ScaledObject") if s["metadata"]["name"] == "consumer")
    triggers = [trigger["metadata"] for trigger in scaler["spec"]["triggers"]]
    assert {(trigger["stream"], trigger["consumerGroup"]) for trigger in triggers} == wanted
    assert scaler["spec"]["maxReplicaCount"] <= shards


@pytest.mark.parametrize(("overlay", "components"), list(combinations()), ids=str)
def test_who_scales_owns_the_number(overlay: str, components: tuple[str, ...]):
    """A count in the manifests would undo the autoscaler's with every apply. Each finds its Deployment."""
    objects = render(f"overlays/{overlay}", *components)
    deployments = {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = deployments[scaler["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], named(target)


def test_metrics_are_fetched_from_every_mode():
    """By a port and a path that its pod has."""
    objects = render("overlays/production")
    fetched = set()
    for monitor in of_kind(objects, "PodMonitor"):
        endpoint = monitor["spec"]["podMetricsEndpoints"][0]
        assert endpoint["path"] == "/metrics"
        for pod in pods(objects):
            if selects(monitor["spec"]["selector"], pod.labels):
                assert endpoint["port"] in {port["name"] for port in pod.spec["containers"][0]["ports"]}
                fetched.add(pod.component)
    assert fetched == {"gateway", "worker", "consumer"}


def test_the_archive_is_the_environments_own():
    """Every night, one at a time, to a place that no other environment has; the worker can read it, too."""
    objects = render("overlays/production", "archive")
    (job,) = of_kind(objects, "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][:3] == ["events", "archive", "--to"]
    assert re.fullmatch(r"s3://[\w.-]+/production", container["args"][3])
    worker = next(pod for pod in pods(objects) if pod.component == "worker")
    for told in (container, worker.spec["containers"][0]):
        assert set(environment(objects, told)) >= OF_THE_BUCKET


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_traces_go_where_the_overlay_says(overlay: str):
    """The literal of its `settings` is what every mode gets."""
    objects = render(f"overlays/{overlay}", "traces")
    modes = [p for p in pods(objects) if p.component in {"gateway", "worker", "consumer"}]
    assert len(modes) == 3
    for pod in modes:
        told = environment(objects, pod.spec["containers"][0])
        assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == COLLECTOR, named(pod.owner)


def test_traces_without_an_address_are_refused(tmp_path: Path):
    """Nobody finds out in a week that nothing was ever sent."""
    copy = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, copy)
    file = copy / "overlays/production/kustomization.yaml"
    overlay = yaml.safe_load(file.read_text(encoding="utf-8"))
    overlay["components"].append("../../components/traces")
    file.write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
    command = [tool("kubectl"), "kustomize", str(file.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "fieldPath `data.OTEL_EXPORTER_OTLP_ENDPOINT` is missing" in done.stderr


def test_developments_temporal_has_the_programs_namespace_and_attributes():
    """As `holdfast up` gives them."""
    temporal = next(pod for pod in pods(render("overlays/dev")) if pod.component == "temporal")
    arguments = temporal.spec["containers"][0]["args"]
    given = [b for a, b in itertools.pairwise(arguments) if a == "--search-attribute"]
    assert given == [f"{name}=Keyword" for name in ATTRIBUTES]
    assert arguments[arguments.index("--namespace") + 1] == "holdfast-dev"


def test_the_platforms_temporal_has_the_programs_namespace_and_attributes():
    """The chart makes the namespace, a Job the attributes; the server is the one that the tests run."""
    values = yaml.safe_load((MANIFESTS / "platform/temporal/values.yaml").read_text(encoding="utf-8"))
    namespaces = {n["name"] for n in values["server"]["config"]["namespaces"]["namespace"]}
    job = next(pod for pod in pods(render("platform/temporal")) if pod.component == "temporal-attributes")
    told = {entry["name"]: entry["value"] for entry in job.spec["containers"][0]["env"]}
    assert tuple((told["ATTRIBUTES"] or "").split()) == ATTRIBUTES
    assert set((told["NAMESPACES"] or "").split()) == namespaces
    assert job.spec["containers"][0]["image"].endswith(f":{values['server']['image']['tag']}")


def test_the_readme_names_every_file():
    """Whoever reads it knows what there is."""
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    for folder in ("components", "overlays", "platform"):
        for path in sorted(MANIFESTS.glob(f"{folder}/*")):
            assert f"`{folder}/{path.name}" in text, path
    assert yaml.safe_load((MANIFESTS / "base/kustomization.yaml").read_text(encoding="utf-8"))
