"""The chart, rendered by the real helm and checked by a real API server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, Kubectl
from tests.helm.test_files import CHART, RBAC, Manifest, rules

pytestmark = pytest.mark.lab

NAMESPACE = "tidegate-system"
VALUES = REPOSITORY / "tests" / "helm" / "values"
Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm(lab: Any) -> Helm:
    """Runs helm; what it answered, whether it failed or not."""
    program = lab.tool("helm")

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def render(helm: Helm, *args: str | Path) -> list[Manifest]:
    done = helm("template", "tidegate", CHART, "--namespace", NAMESPACE, *args)
    assert done.returncode == 0, done.stderr
    return [m for m in yaml.safe_load_all(done.stdout) if m]


def one(manifests: list[Manifest], kind: str, name: str = "tidegate") -> Manifest:
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} are named {name}"
    return found[0]


@pytest.fixture(scope="module", params=["default", "minimal", "everything"])
def manifests(request: pytest.FixtureRequest, helm: Helm) -> list[Manifest]:
    return render(helm, "--values", VALUES / f"{request.param}.yaml")


@pytest.fixture(scope="module")
def default(helm: Helm) -> list[Manifest]:
    return render(helm)


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["spec"]["template"]


@pytest.mark.parametrize("values", ["default", "minimal", "everything"])
def test_lint_has_no_complaint(helm: Helm, values: str) -> None:
    done = helm("lint", "--strict", "--values", VALUES / f"{values}.yaml", CHART)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_the_api_server_takes_all_of_it(kubectl: Kubectl, helm: Helm, manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "ServiceMonitor":
            continue  # its definition comes with the Prometheus operator, which the lab has not
        manifest["metadata"].pop("namespace", None)  # the release's namespace need not be there
        kubectl.must("apply", "--dry-run=server", "--server-side", "--force-conflicts", "-f", "-", manifest=manifest)


def test_definitions_come_with_the_chart_and_stay(default: list[Manifest]) -> None:
    definitions = {m["metadata"]["name"]: m for m in default if m["kind"] == "CustomResourceDefinition"}
    files = {p: yaml.safe_load(p.read_text()) for p in (REPOSITORY / "crds").glob("*.yaml")}
    assert definitions == {m["metadata"]["name"]: m for m in files.values()}
    assert {m["metadata"]["annotations"]["helm.sh/resource-policy"] for m in definitions.values()} == {"keep"}


def test_definitions_can_be_left_to_somebody_else(helm: Helm) -> None:
    kinds = {m["kind"] for m in render(helm, "--set", "crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


def test_pods_have_no_right_on_their_node(manifests: list[Manifest]) -> None:
    seen = list(pods(manifests))
    assert len(seen) == 2
    for pod in seen:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} <= container["resources"].keys()


def test_one_operator_at_a_time(default: list[Manifest]) -> None:
    spec = one(default, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_is_started_probed_and_told_its_namespace(default: list[Manifest]) -> None:
    container = one(default, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["tidegate", "operator", "--log-level", "info"]
    assert {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}} in container["env"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"probes": 8080, "metrics": 9090}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "probes"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}


def test_service_and_policy_reach_the_operator_only(manifests: list[Manifest]) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(manifests)]
    selectors = [one(manifests, "Service", "tidegate-metrics")["spec"]["selector"]]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in manifests if m["kind"] == "NetworkPolicy"]
    for selector in selectors:
        hit = [pod for pod in labels if selector.items() <= pod.items()]
        assert [pod["app.kubernetes.io/component"] for pod in hit] == ["operator"]


def test_slurmd_pods_are_never_preempted_and_preempt_nobody(default: list[Manifest]) -> None:
    priority = one(default, "PriorityClass", "tidegate-slurmd")
    assert (priority["value"], priority["preemptionPolicy"]) == (1_000_000_000, "Never")
    assert priority["globalDefault"] is False


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        ("cluster", "ClusterRole", "tidegate"),
        ("namespace", "Role", "tidegate"),
        ("returnAll", "ClusterRole", "tidegate-return-all"),
    ],
)
def test_roles_grant_the_table_and_nothing_else(default: list[Manifest], part: str, kind: str, name: str) -> None:
    role = one(default, kind, name)
    assert role["rules"] == [{k: v for k, v in rule.items() if k != "why"} for rule in RBAC[part]]
    binding = one(default, f"{kind}Binding", name)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    assert [s["name"] for s in binding["subjects"]] == [one(default, "ServiceAccount", name)["metadata"]["name"]]


def test_only_the_two_accounts_are_bound(default: list[Manifest]) -> None:
    bound = {s["name"] for m in default if m["kind"].endswith("RoleBinding") for s in m["subjects"]}
    assert bound == {"tidegate", "tidegate-return-all"}


def test_people_may_claim_where_they_may_run_pods_and_look_at_the_rest(default: list[Manifest]) -> None:
    edit = one(default, "ClusterRole", "tidegate-edit")
    assert {resource for _, resource, _ in rules(edit["rules"])} == {"capacityclaims"}
    view = one(default, "ClusterRole", "tidegate-view")
    assert {verb for _, _, verb in rules(view["rules"])} == {"get", "list", "watch"}


def test_uninstalling_takes_all_nodes_back_first(helm: Helm) -> None:
    manifests = render(helm, "--set", "returnAll.timeoutSeconds=900")
    hooks = [m for m in manifests if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    assert {m["metadata"]["annotations"]["helm.sh/hook"] for m in hooks} == {"pre-delete"}
    job = one(hooks, "Job", "tidegate-return-all")
    spec = job["spec"]["template"]["spec"]
    assert spec["containers"][0]["command"] == ["tidegate", "return-all", "--timeout-seconds", "900"]
    operator = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert spec["containers"][0]["image"] == operator["image"]
    assert (job["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert job["spec"]["activeDeadlineSeconds"] > 900
    assert job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"
    account = one(hooks, "ServiceAccount", spec["serviceAccountName"])
    weights = {m["kind"]: int(m["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for m in hooks}
    assert weights[account["kind"]] < weights["Job"] > weights["ClusterRoleBinding"]


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = f"sha256:{'0' * 64}"
    pod = one(render(helm, "--set", f"image.digest={digest},image.tag=x"), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"tidegate@{digest}"


def test_everything_on_shows_in_the_pod(helm: Helm) -> None:
    manifests = render(helm, "--values", VALUES / "everything.yaml")
    assert {"ServiceMonitor", "NetworkPolicy"} <= {m["kind"] for m in manifests}
    values = yaml.safe_load((VALUES / "everything.yaml").read_text())
    template = one(manifests, "Deployment")["spec"]["template"]
    spec = template["spec"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert spec[key] == values[key], key
    assert spec["containers"][0]["resources"] == values["resources"]
    assert values["env"][0] in spec["containers"][0]["env"]
    assert values["podLabels"].items() <= template["metadata"]["labels"].items()
    assert values["podAnnotations"].items() <= template["metadata"]["annotations"].items()


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("replicas=2", "replicas"),
        ("image.tga=x", "tga"),
        ("image.digest=sha256:short", "digest"),
        ("image.repository=", "repository"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("crds.enabled=maybe", "enabled"),
        ("returnAll.timeoutSeconds=0", "timeoutSeconds"),
        ("logLevel=trace", "logLevel"),
        ("env[0].value=x", "env"),
        ("env[0].name=POD_NAMESPACE", "env"),
        ("metrics.serviceMonitor.interval=soon", "interval"),
    ],
)
def test_values_that_mean_nothing_are_refused(helm: Helm, setting: str, path: str) -> None:
    done = helm("template", "tidegate", CHART, "--set", setting)
    assert done.returncode != 0
    assert path in done.stderr
    assert "don't meet the specifications of the schema" in done.stderr


def test_notes_tell_what_to_do_next(helm: Helm, kubectl: Kubectl) -> None:
    done = helm(
        "install", "tidegate", CHART, "--dry-run=client", "--namespace", NAMESPACE, "--kubeconfig", kubectl.kubeconfig
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl create secret generic slurm-campus --namespace tidegate-system" in notes
    assert "helm uninstall" in notes
