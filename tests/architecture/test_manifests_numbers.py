"""The numbers of the manifests fit together: connections, times, replicas, memory."""

import ast
import re

import pytest
import yaml

from app import config
from app.connections import OUTSIDE_POOL, Fleet, needed
from tests.architecture.rendered import (
    MANIFESTS,
    OVERLAYS,
    PLATFORM,
    ROOT,
    Object,
    Pod,
    combinations,
    environment,
    is_ours,
    named,
    of_kind,
    pods,
    render,
    seconds,
    selects,
)

SUPERUSERS = 3
"""Connections that PostgreSQL keeps back by default."""
OPERATORS = 10
"""Connections that are left to people, backups and the metrics exporter."""
VERSIONS = 2
"""Versions of a WorkerDeployment that carry orders at the same time, while one follows the other."""


def highest(objects: tuple[Object, ...], owner: Object) -> int:
    """How many replicas there may be: what an autoscaler may make of them, else what is written."""
    name = owner["metadata"]["name"]
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        if scaler["spec"]["scaleTargetRef"]["name"] == name:
            spec = scaler["spec"]
            return int(spec.get("maxReplicas") or spec["maxReplicaCount"])
    return int(owner["spec"].get("replicas", 1))


def fleet(objects: tuple[Object, ...], pod: Pod) -> Fleet | None:
    """The processes of a workload, as the arithmetic counts them; None for what opens no connection."""
    container = pod.spec["containers"][0]
    told = environment(objects, container)
    if not is_ours(container) or "DATABASE_URL" not in told:
        return None
    owner = pod.owner
    if owner["kind"] in {"Job", "CronJob"}:
        return Fleet(role="platform", replicas=1, pool=1)
    default = next(s.default for s in config.SETTINGS if s.name == "DATABASE_POOL_SIZE")
    is_versioned = owner["kind"] == "WorkerDeployment"
    update = owner["spec"].get("strategy", {}).get("rollingUpdate", {"maxSurge": 0, "maxUnavailable": 0})
    assert update["maxUnavailable"] == 0, named(owner)
    return Fleet(
        role="platform",
        replicas=highest(objects, owner) * (VERSIONS if is_versioned else 1),
        pool=int(told.get("DATABASE_POOL_SIZE") or default or 0),
        others=OUTSIDE_POOL[str(told["MODE"])],
        surge=update["maxSurge"],
        grace_s=pod.spec["terminationGracePeriodSeconds"],
        ready_s=owner["spec"]["minReadySeconds"],
    )


def budget(objects: tuple[Object, ...]) -> int:
    """DATABASE_CONNECTIONS_MAX as everybody is told."""
    return next(
        int(one["data"]["DATABASE_CONNECTIONS_MAX"])
        for one in of_kind(objects, "ConfigMap")
        if "DATABASE_CONNECTIONS_MAX" in one["data"]
    )


@pytest.mark.parametrize(("overlay", "components"), list(combinations()), ids=str)
def test_all_pools_fit_the_budget_in_the_middle_of_a_rollout(overlay: str, components: tuple[str, ...]):
    """With as many replicas as the autoscalers may make, new pods beside old ones that drain."""
    objects = render(f"overlays/{overlay}", *components)
    fleets = [one for pod in pods(objects) if (one := fleet(objects, pod)) is not None]
    assert len(fleets) >= 4
    assert needed(fleets)["platform"] <= budget(objects)


def test_developments_server_has_the_budget():
    """And some connections for people."""
    objects = render("overlays/dev")
    arguments = next(pod for pod in pods(objects) if pod.component == "postgres").spec["containers"][0][
        "args"
    ]
    has = int(re.search(r"max_connections=(\d+)", " ".join(arguments))[1])
    assert budget(objects) <= has - SUPERUSERS - OPERATORS


def test_the_platforms_server_has_productions_budget():
    """Of the cluster that holds the platform's own data."""
    cluster = next(c for c in of_kind(render("platform/postgres"), "Cluster") if is_holdfast(c))
    has = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
    assert budget(render("overlays/production")) <= has - SUPERUSERS - OPERATORS


def test_temporals_connections_fit_its_server():
    """Each pod has two pools; a chart's rollout adds a pod to each service, and the Jobs have one each."""
    values = yaml.safe_load((MANIFESTS / "platform/temporal/values.yaml").read_text(encoding="utf-8"))[
        "server"
    ]
    stores = values["config"]["persistence"]["datastores"].values()
    each = sum(store["sql"]["maxConns"] for store in stores)
    services = ("frontend", "history", "matching", "worker")
    fleets = [
        Fleet(role="temporal", pool=each, surge=1, replicas=values[name]["replicaCount"]) for name in services
    ]
    cluster = next(c for c in of_kind(render("platform/postgres"), "Cluster") if not is_holdfast(c))
    has = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
    assert needed(fleets)["temporal"] <= has - SUPERUSERS - OPERATORS


def is_holdfast(cluster: Object) -> bool:
    """Whether it is the one with the orders."""
    return bool(cluster["metadata"]["name"] == "holdfast")


def test_connections_beside_the_pool_are_counted():
    """Each place in a mode's run.py that opens a connection is one of a pool, or counted in OUTSIDE_POOL."""
    for mode, folder in (("gateway", "gateway"), ("worker", "workers"), ("consumer", "consumer")):
        tree = ast.parse((ROOT / f"app/{folder}/run.py").read_text(encoding="utf-8"))
        names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        sizes = [
            next(k.value for k in c.keywords if k.arg == "size") for c in calls if c.func.id == "Database"
        ]
        sizes += [c.args[1] for c in calls if c.func.id == "pool"]  # the consumer's way to `Database`
        sizes = [size for size in sizes if not isinstance(size, ast.Name)]  # which is itself handed its size
        single = [size for size in sizes if isinstance(size, ast.Constant) and size.value == 1]
        outboxes = [name for name in names if name.id == "open_outbox"]
        assert len(sizes) == 1 + len(single), folder
        assert OUTSIDE_POOL[mode] == len(single) + len(outboxes)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_given_more_time_than_the_program_takes(overlay: str):
    """The time of preStop and SHUTDOWN_TIMEOUT_S, and ten seconds for what nobody thought of."""
    objects = render(f"overlays/{overlay}")
    modes = [pod for pod in pods(objects) if "MODE" in environment(objects, pod.spec["containers"][0])]
    assert len(modes) == 3
    for pod in modes:
        before, timeout, grace = seconds(objects, pod)
        assert grace >= before + timeout + 10, pod.component
        assert before > 0 or pod.component != "gateway", "callers must be led elsewhere first"


@pytest.mark.parametrize("place", [f"overlays/{n}" for n in OVERLAYS] + [f"platform/{n}" for n in PLATFORM])
def test_labels_and_selectors_meet(place: str):
    """Each selector takes what it is meant to take, and no more."""
    objects = render(place)
    all_ = pods(objects)
    for pod in all_:
        spec = pod.owner["spec"]
        if "selector" in spec:
            assert selects(spec["selector"], pod.labels), named(pod.owner)
            others = [p for p in all_ if p is not pod and selects(spec["selector"], p.labels)]
            assert others == [], named(pod.owner)
        for spread in pod.spec.get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], pod.labels), named(pod.owner)
    for service in of_kind(objects, "Service"):
        chosen = [p for p in all_ if selects({"matchLabels": service["spec"]["selector"]}, p.labels)]
        assert len(chosen) == 1, named(service)
        names = {p["name"] for c in chosen[0].containers for p in c.get("ports", [])}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= names, named(service)
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for one in of_kind(objects, kind):
            assert any(selects(one["spec"]["selector"], p.labels) for p in all_), named(one)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_mode_has_a_budget_for_disruptions(overlay: str):
    """One, that lets one pod go at a time."""
    objects = render(f"overlays/{overlay}")
    for pod in pods(objects):
        if "MODE" in environment(objects, pod.spec["containers"][0]):
            mine = [
                b["spec"]
                for b in of_kind(objects, "PodDisruptionBudget")
                if selects(b["spec"]["selector"], pod.labels)
            ]
            assert [budget["maxUnavailable"] for budget in mine] == [1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ways_in_lead_to_ports_that_there_are(overlay: str):
    """Of the Service that they name."""
    objects = render(f"overlays/{overlay}")
    services = {s["metadata"]["name"]: s["spec"]["ports"] for s in of_kind(objects, "Service")}
    for route in of_kind(objects, "HTTPRoute"):
        for backend in [b for rule in route["spec"]["rules"] for b in rule["backendRefs"]]:
            assert backend["port"] in {port["port"] for port in services[backend["name"]]}
