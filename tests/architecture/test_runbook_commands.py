"""What a page for the night says to type at a cluster: kubectl understands it, and what it names is there.

No cluster is needed: kubectl reads a whole command before it asks its server, and that is not there. What it
would be asked about is in the manifests of production, and of the servers beside it.
"""

import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from app import config
from app.contracts import temporal as t
from tests.architecture.rendered import MANIFESTS, PLATFORM, Object, pods, render, tool
from tests.architecture.watched import ROOT, RUNBOOKS

PAGES = (*RUNBOOKS, MANIFESTS / "README.md")
CONFIG = """
apiVersion: v1
kind: Config
current-context: nobody
clusters: [{name: nobody, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: nobody, context: {cluster: nobody}}]
"""
KINDS = {
    "clusters.postgresql.cnpg.io": "Cluster",
    "deploy": "Deployment",
    "deployment": "Deployment",
    "hpa": "HorizontalPodAutoscaler",
    "httproute": "HTTPRoute",
    "ingress": "Ingress",
    "job": "Job",
    "podmonitors.monitoring.coreos.com": "PodMonitor",
    "scaledobject": "ScaledObject",
    "service": "Service",
}
"""What kubectl calls them → what they are. Pods are looked for among the workloads that make them."""
NOBODYS = {"node", "nodes", "namespace", "endpointslices", "prometheuses.monitoring.coreos.com"}
"""Kinds of which no manifest of ours makes one."""
OTHERS = {
    ("Deployment", "temporal-frontend"),
    ("Deployment", "temporal-history"),
    ("Service", "temporal-frontend"),
    ("Service", "holdfast-rw"),
}
"""What others make: Temporal's chart of the release `temporal` (platform/temporal/values.yaml), and
CloudNativePG of the cluster `holdfast` (platform/postgres/holdfast.yaml)."""
WITH_NAMES = {"get", "describe", "delete"}
"""Verbs that are followed by a kind and then by names."""
SEVERAL = (("overlays/production",), ("overlays/production", "worker-queues", "worker-queues-keda"))
_SELECTOR = re.compile(r"(?P<key>[\w./-]+)(?:=(?P<one>[\w.-]+)| in \((?P<many>[^)]+)\))")


class Command(NamedTuple):
    """A command of a page: its words up to a `--`, and those behind it, which a container runs."""

    page: str
    words: tuple[str, ...]
    within: tuple[str, ...]

    def value(self, *options: str) -> str | None:
        """What an option is set to."""
        return next((self.words[at + 1] for at, word in enumerate(self.words) if word in options), None)


def commands(program: str) -> list[Command]:
    """Every command of the pages that begins with this word; `…` is whatever somebody puts there."""
    found = {}
    for page in PAGES:
        for line in re.findall(r"^\$ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            lexer = shlex.shlex(line.replace("…", "x"), posix=True, punctuation_chars=True)
            lexer.wordchars += ":%{}[]*?@$,="
            words: list[str] = []
            for word in (*lexer, ";"):
                if word and not set(word) <= set("|&;<>"):
                    words.append(word)
                    continue
                if words[:1] == [program]:
                    split = words.index("--") if "--" in words else len(words)
                    before, within = tuple(words[1:split]), tuple(words[split + 1 :])
                    found.setdefault((before, within), Command(page.name, before, within))
                words = []
    return list(found.values())


KUBECTL = commands("kubectl")
TEMPORAL = commands("temporal")


@cache
def objects(namespace: str) -> tuple[Object, ...]:
    """All that the manifests put into a namespace."""
    if namespace == "holdfast-dev":
        return render("overlays/dev")
    if namespace == "holdfast-production":
        return tuple(one for each in SEVERAL for one in render(*each))
    assert namespace in {*PLATFORM, "monitoring"}, namespace
    return render(f"platform/{namespace}") if namespace in PLATFORM else ()


def shown(command: Command) -> str:
    """The page, and the beginning of the command."""
    return f"{command.page}: {shlex.join(command.words)}"


def test_there_are_commands():
    """They are read off the pages, so what is looked at is what people see."""
    assert len(KUBECTL) > 60
    assert len(TEMPORAL) > 8
    assert ("holdfast", "dlq", "list") in {command.within for command in KUBECTL}


def test_kubectl_understands_every_command(tmp_path: Path):
    """Each option and its value; what it says next is that nobody answers."""
    file = tmp_path / "config"
    file.write_text(CONFIG, encoding="utf-8")
    environment = {"KUBECONFIG": str(file), "HOME": str(tmp_path)}

    def complaint(command: Command) -> str | None:
        line = [tool("kubectl"), *command.words, *(("--", *command.within) if command.within else ())]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT, env=environment
        )
        is_asked = re.search(r"connection( to the server \S+ was)? refused", done.stderr)
        return None if is_asked or done.returncode == 0 else f"{shown(command)}: {done.stderr}"

    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(complaint, KUBECTL) if said] == []


@pytest.mark.parametrize("command", KUBECTL, ids=shown)
def test_what_a_command_names_is_in_the_manifests(command: Command):
    """Deployments, jobs, labels, containers, folders, namespaces and settings."""
    there = objects(command.value("-n", "--namespace") or "holdfast-production")
    names = OTHERS | {(one["kind"], one["metadata"]["name"]) for one in there}
    assert [pair for pair in named(command) if pair[0] != "Pod" and pair not in names] == []
    made_of = [pod.owner["metadata"]["name"] for pod in pods(there)]
    of_pods = [name for kind, name in named(command) if kind == "Pod"]
    assert [name for name in of_pods if not name.startswith(tuple(f"{one}-" for one in made_of))] == []
    chosen = command.value("-c", "--container")
    assert chosen in {None, *(one["name"] for pod in pods(there) for one in pod.containers)}
    folder = command.value("-k")
    assert folder is None or (ROOT / folder / "kustomization.yaml").is_file()
    if command.within[:1] == ("printenv",):
        assert set(command.within[1:]) <= {setting.name for setting in config.SETTINGS}


@pytest.mark.parametrize("command", [one for one in KUBECTL if one.value("-l")], ids=shown)
def test_a_selector_takes_something(command: Command):
    """Each of the values that it lists."""
    there = objects(command.value("-n", "--namespace") or "holdfast-production")
    labels = [pod.labels for pod in pods(there)] + [one["metadata"].get("labels", {}) for one in there]
    found = _SELECTOR.fullmatch(command.value("-l") or "")
    assert found is not None
    values = [found["one"]] if found["one"] else re.split(r",\s*", found["many"])
    assert set(values) <= {each.get(found["key"]) for each in labels}


def named(command: Command) -> list[tuple[str, str]]:
    """The kinds and names in a command: `deploy/worker`, `hpa gateway`, `pod worker-…`."""
    found = []
    for word in command.words:
        kind, slash, name = word.partition("/")
        if slash and kind in KINDS:
            found.append((KINDS[kind], name))
    plain = [word for word in command.words if not word.startswith("-")]
    if plain[0] == "logs" and "/" not in plain[1] and command.value("-l") is None:
        found.append(("Pod", plain[1]))
    verb = next((at for at, word in enumerate(plain) if word in WITH_NAMES), None)
    if verb is not None and "/" not in plain[verb + 1]:
        kinds = plain[verb + 1].split(",")
        assert [kind for kind in kinds if kind not in {*KINDS, *NOBODYS, "pod", "pods"}] == []
        if kinds[0] not in NOBODYS and len(plain) > verb + 2 and plain[verb + 2] not in valued(command):
            found.append((KINDS.get(kinds[0], "Pod"), plain[verb + 2]))
    return found


def valued(command: Command) -> set[str | None]:
    """The words that belong to an option."""
    return {command.value(option) for option in ("-l", "-o", "-c", "-n")}


@pytest.mark.parametrize("command", TEMPORAL, ids=shown)
def test_temporal_knows_the_command_and_what_it_names(command: Command):
    """Its options; the signals, queues and attributes are ours."""
    verbs = list(command.words[: next((i for i, w in enumerate(command.words) if w[0] == "-"), None)])
    helped = subprocess.run(
        [tool("temporal"), *verbs, "--help"], capture_output=True, text=True, timeout=100, check=False
    )
    assert f"temporal {' '.join(verbs)}" in helped.stdout
    options = [word for word in command.words if word.startswith("--")]
    assert [option for option in options if option not in helped.stdout] == []
    assert command.value("--task-queue") in {None, *t.QUEUES}
    signals = {t.SIGNAL_CANCEL, t.SIGNAL_DELIVERED, t.SIGNAL_RETRY}
    assert verbs[1:] != ["signal"] or command.value("--name") in signals
    attributes = set(re.findall(r"\b([A-Z]\w+) (?:=|IS)", command.value("--query") or ""))
    assert attributes <= {"ExecutionStatus", "TaskQueue", *t.ATTRIBUTES}
