"""NetworkPolicies allow the paths of docs/ARCHITECTURE.md and no other."""

import re
from typing import NamedTuple

import pytest

from tests.architecture.rendered import (
    OVERLAYS,
    ROOT,
    Object,
    Pod,
    named,
    of_kind,
    pods,
    render,
    selects,
)

OUTSIDE = {
    "5432": "postgres",
    "6379": "redis",
    "7233": "temporal",
    "443": "providers",
    "1024-65535": "webhooks",
    "587": "mail",
    "465": "mail",
}
"""What is meant by an address that is not a pod's: each service has a port of its own."""
LABELLED = {"holdfast.io/edge": "edge", "holdfast.io/monitoring": "monitoring"}


class Path(NamedTuple):
    """Who may talk to whom, on which port."""

    source: str
    target: str
    port: str


def documented(chosen: set[str], inside: set[str]) -> set[Path]:
    """The paths of the table in docs/ARCHITECTURE.md that an overlay with these components has."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## Network paths\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (\w+) \| ([\d-]+) \| ([\w, ]+) \|$", section, re.MULTILINE)
    assert len(rows) > 10, "the table of network paths is not where it was"
    found = set()
    for source, target, port, where in rows:
        if chosen & set(where.split(", ")):
            sources = inside if source == "everything" else {source}
            found |= {Path(one, target, port) for one in sources}
    return found


def peers(peer: Object, port: str, all_: list[Pod]) -> set[str]:
    """Who is meant by one peer of a rule."""
    space, pod = peer.get("namespaceSelector"), peer.get("podSelector")
    if "ipBlock" in peer:
        return {OUTSIDE[port]}
    if space is None:
        return {one.component for one in all_ if selects(pod, one.labels)}
    labels = space["matchLabels"]
    if labels == {"kubernetes.io/metadata.name": "kube-system"}:
        assert pod == {"matchLabels": {"k8s-app": "kube-dns"}}
        return {"names"}
    if labels == {"holdfast.io/services": "true"}:
        return {OUTSIDE[port]}
    return {LABELLED[key] for key, value in labels.items() if value == "true"}


def port_of(rule: Object) -> str:
    """A port, or a range of them as `first-last`."""
    return f"{rule['port']}-{rule['endPort']}" if "endPort" in rule else str(rule["port"])


def allowed(objects: tuple[Object, ...], side: str) -> set[Path]:
    """The paths that one side's rules (`egress`, `ingress`) allow."""
    all_ = pods(objects)
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        chosen = {one.component for one in all_ if selects(policy["spec"]["podSelector"], one.labels)}
        for rule in policy["spec"].get(side, []):
            assert rule.get("ports"), f"{named(policy)} names no port: it would allow all"
            assert rule.get("to" if side == "egress" else "from"), (
                f"{named(policy)} names nobody: it means all"
            )
            for port in map(port_of, rule["ports"]):
                for peer in rule["to" if side == "egress" else "from"]:
                    others = peers(peer, port, all_)
                    assert others, f"{named(policy)} names a peer that there is not: {peer}"
                    for mine in chosen:
                        ends = [(mine, other) if side == "egress" else (other, mine) for other in others]
                        found |= {Path(*end, port) for end in ends}
    return found


@pytest.mark.parametrize(
    ("overlay", "components"),
    [
        *((overlay, ()) for overlay in OVERLAYS),
        ("dev", ("worker-queues",)),
        ("production", ("worker-versioning",)),
        ("production", ("archive", "traces")),
        ("dev", ("traces",)),
    ],
    ids=str,
)
def test_the_policies_allow_the_documented_paths_and_no_other(overlay: str, components: tuple[str, ...]):
    """Both ends: a path inside the environment needs a rule at each, and there is none without a row."""
    objects = render(f"overlays/{overlay}", *components)
    inside = {pod.component for pod in pods(objects)}
    paths = documented({overlay, *components}, inside)
    assert allowed(objects, "egress") == {path for path in paths if path.source in inside}
    assert allowed(objects, "ingress") == {path for path in paths if path.target in inside}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_not_allowed_is_forbidden(overlay: str):
    """One policy takes every pod, both ways, and allows nothing; the others only add to it."""
    policies = of_kind(render(f"overlays/{overlay}"), "NetworkPolicy")
    nothing = [p["spec"] for p in policies if p["metadata"]["name"] == "nothing"]
    assert nothing == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_policy_says_which_way_it_is_for(overlay: str):
    """Without its types a policy with rules for one way would forbid the other, too."""
    for policy in of_kind(render(f"overlays/{overlay}"), "NetworkPolicy"):
        ways = {way.lower() for way in policy["spec"]["policyTypes"]}
        if policy["metadata"]["name"] != "nothing":
            assert ways == {way for way in ("ingress", "egress") if way in policy["spec"]}, named(policy)


def test_every_port_that_is_allowed_is_one_that_somebody_listens_on():
    """A port that changes on one side only is noticed."""
    for overlay in OVERLAYS:
        objects = render(f"overlays/{overlay}")
        listening = {
            (pod.component, str(port["containerPort"]))
            for pod in pods(objects)
            for container in pod.containers
            for port in container.get("ports", [])
        }
        for path in allowed(objects, "ingress"):
            assert (path.target, path.port) in listening


def test_one_path_too_many_is_noticed():
    """A policy that nobody documented, planted: the comparison above would see it."""
    objects = render("overlays/production")
    extra = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "planted"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}],
        },
    }
    assert allowed((*objects, extra), "egress") - allowed(objects, "egress") == {
        Path("gateway", "providers", "443")
    }
