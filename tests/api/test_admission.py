"""What a real API server takes and refuses, and that a refusal says what to write instead."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.lab import Lab
from tests.conftest import REPOSITORY, Kubectl

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("crds")]

Manifest = dict[str, Any]


def resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


CLUSTER = resource(
    "SlurmCluster",
    "admission",
    {
        "endpoint": "http://slurmrestd.example:6820",
        "credentialsSecretName": "slurm",
        "controllerAddress": "slurm.example:6817",
    },
)
POOL = resource(
    "BatchPool",
    "admission",
    {
        "nodeSelector": {"example.com/admission": "none"},
        "slurmClusterName": "admission",
        "partition": "lent",
        "slurmd": {"image": "slurmd"},
    },
)
LOAN = resource(
    "NodeLoan",
    "admission-1",
    {
        "poolName": "admission",
        "nodeName": "no-such-node",
        "slurmNodeName": "no-such-node",
        "gpuResourceName": "nvidia.com/gpu",
        "gpus": 2,
        "priority": -100,
    },
)
CLAIM = resource("CapacityClaim", "admission", {"poolName": "admission"})
SERVICE = resource("InferenceService", "admission", {"server": {"image": "server"}})
BASES = {m["kind"]: m for m in (CLUSTER, POOL, LOAN, CLAIM, SERVICE)}

JOB = {"jobId": 17, "priority": 5000, "nodes": 2}
HOLDER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1"}
LONG = "a" * 64
LATER = {"startTime": "2031-02-03T08:00:00Z", "durationSeconds": 3600}
WINDOW: Manifest = {"schedule": "0 8 * * 1-5", "durationSeconds": 3600}


def windows(*given: Manifest, **lending: Any) -> Manifest:
    return {"spec": {"lending": {"windows": [{**WINDOW, **window} for window in given], **lending}}}


def changed(base: Manifest, change: Manifest) -> Manifest:
    """The manifest with a merge patch applied; None takes a field away."""
    merged = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = changed(merged[key], value)
        else:
            merged[key] = value
    return merged


TAKEN = [
    ("SlurmCluster", {}),
    ("SlurmCluster", {"spec": {"endpoint": "https://10.0.0.7:6820"}}),
    ("SlurmCluster", {"spec": {"priorities": [{"qos": "urgent", "priority": 5000}]}}),
    ("SlurmCluster", {"spec": {"priorities": [{"partition": "urgent", "qos": "high", "priority": -5}]}}),
    ("BatchPool", {}),
    ("BatchPool", {"metadata": {"name": LONG[1:]}}),
    ("BatchPool", {"spec": {"lending": {"headroom": {"low": 2, "high": 2}}}}),
    ("BatchPool", {"spec": {"lending": {"headroom": {"high": 2}}}}),
    ("BatchPool", {"spec": {"lending": {"floor": 3, "cap": 3}}}),
    ("BatchPool", {"spec": {"lending": {"floor": 3}}}),
    ("BatchPool", {"spec": {"mode": "Recommend"}}),
    ("BatchPool", {"spec": {"lending": {"kubernetes": {"floor": 2, "cap": 2}, "headroom": {"low": 2, "high": 3}}}}),
    ("BatchPool", {"spec": {"lending": {"windows": [{**WINDOW, "timeZone": "Europe/Berlin", "policy": "Eager"}]}}}),
    ("BatchPool", {"spec": {"lending": {"windows": [{**WINDOW, "schedule": "*/5 8-17 1,15 JAN MON#1", "cap": 3}]}}}),
    ("BatchPool", {"spec": {"lending": {"floor": 3, "cap": 3, "windows": [{**WINDOW, "floor": 0}]}}}),
    ("BatchPool", {"spec": {"lending": {"windows": [{**WINDOW, "kubernetes": {"floor": 1}}] * 16}}}),
    ("BatchPool", {"spec": {"recall": {"graceful": {"drainSeconds": 0}}}}),
    ("BatchPool", {"spec": {"gpuResourceNames": ["amd.com/gpu", "habana.ai/gaudi"]}}),
    ("BatchPool", {"spec": {"features": ["lent", "A100_80.gb"]}}),
    ("BatchPool", {"spec": {"slurmd": {"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}}}}),
    ("NodeLoan", {}),
    ("NodeLoan", {"spec": {"wanted": "Returned"}}),
    ("NodeLoan", {"spec": {"wanted": "Returned", "back": {"reason": "Maintenance", "recallClass": "graceful"}}}),
    ("CapacityClaim", {}),
    ("CapacityClaim", {"spec": {"nodes": 4, "priorityClassName": "high", "recallClass": "fast", "ttlSeconds": 60}}),
    ("CapacityClaim", {"spec": {"holderRef": HOLDER}}),
    ("CapacityClaim", {"spec": {"gpus": 12, "gang": True, "gatherSeconds": 60, "durationSeconds": 3600}}),
    ("CapacityClaim", {"spec": {"nodeSelector": {"example.com/zone": "b"}}}),
    ("BatchPool", {"spec": {"recall": {"fast": {"minimumPriority": 1000}}}}),
    ("BatchPool", {"spec": {"claims": {"quotas": [{"nodes": 9}, {"namespace": "ml", "nodes": 2}]}}}),
    ("CapacityClaim", {"spec": LATER}),
]

PRESET = {"server": None, "preset": {"name": "vllm"}, "model": {"persistentVolumeClaim": "models"}}
TAKEN += [
    ("InferenceService", {}),
    ("InferenceService", {"spec": PRESET}),
    ("InferenceService", {"spec": {"model": {"image": {"reference": "m"}, "path": "a/b.gguf"}}}),
    ("InferenceService", {"spec": {"model": {"volume": {"nfs": {"server": "s", "path": "/m"}}}}}),
    ("InferenceService", {"spec": {"server": {"env": [{"name": "A", "value": "1"}], "command": ["run"]}}}),
    ("InferenceService", {"spec": {"minReplicas": 0, "maxReplicas": 3, "replicas": 2}}),
    ("InferenceService", {"spec": {"warmReplicas": 2, "poolName": "p"}}),
    ("InferenceService", {"spec": {"template": {"spec": {"tolerations": [{"operator": "Exists"}]}}}}),
    ("InferenceService", {"metadata": {"name": "a" * 58}}),
]

REFUSED = [
    ("InferenceService", {"spec": {"server": None}}, "say either `server` or `preset`"),
    ("InferenceService", {"spec": {"preset": {"name": "vllm"}}}, "say either `server` or `preset`"),
    ("InferenceService", {"spec": {**PRESET, "model": None}}, "a `preset` needs a `model`"),
    ("InferenceService", {"spec": {**PRESET, "preset": {"name": "tgi"}}}, 'supported values: "vllm", "llama.cpp"'),
    (
        "InferenceService",
        {"spec": {"model": {"path": "x"}}},
        "say one of `persistentVolumeClaim`, `image` and `volume`",
    ),
    (
        "InferenceService",
        {"spec": {"model": {"persistentVolumeClaim": "m", "volume": {"emptyDir": {}}}}},
        "say one of `persistentVolumeClaim`, `image` and `volume`",
    ),
    (
        "InferenceService",
        {"spec": {"model": {"persistentVolumeClaim": "m", "path": "../secret"}}},
        "spec.model.path: .* must be a path within the volume, such as `tiny/model.gguf`",
    ),
    ("InferenceService", {"spec": {"server": {"port": 8080}}}, "spec.server.port: .* must not be 8080 or 8081"),
    (
        "InferenceService",
        {"spec": {"minReplicas": 3, "maxReplicas": 2}},
        "`minReplicas` must not be above `maxReplicas`: raise `maxReplicas`, or lower `minReplicas`",
    ),
    (
        "InferenceService",
        {"spec": {"warmReplicas": 1}},
        "`warmReplicas` are held in a BatchPool: name it in `poolName`",
    ),
    (
        "InferenceService",
        {"spec": {"warmReplicas": 1, "poolName": "p", "gpusPerReplica": 0}},
        "`warmReplicas` hold nodes with GPUs: set `gpusPerReplica`",
    ),
    ("InferenceService", {"metadata": {"name": "a" * 59}}, "`metadata.name` must be the name of a Service"),
    ("InferenceService", {"metadata": {"name": "9lives"}}, "`metadata.name` must be the name of a Service"),
    (
        "SlurmCluster",
        {"spec": {"endpoint": "slurmrestd.example:6820"}},
        "spec.endpoint: .* must be the address of slurmrestd without path and user, such as `https://",
    ),
    ("SlurmCluster", {"spec": {"endpoint": "http://slurmrestd.example:6820/slurm"}}, "without path and user"),
    ("SlurmCluster", {"spec": {"endpoint": "http://root@slurmrestd.example:6820"}}, "without path and user"),
    (
        "SlurmCluster",
        {"spec": {"controllerAddress": "slurm.example"}},
        "spec.controllerAddress: .* must be host and port of slurmctld, such as `slurm.example:6817`",
    ),
    ("SlurmCluster", {"spec": {"credentialsSecretName": None}}, "spec.credentialsSecretName: Required value"),
    (
        "SlurmCluster",
        {"spec": {"priorities": [{"priority": 5000}]}},
        r"spec.priorities\[0\]: .* must name a `partition` or a `qos`, or both",
    ),
    (
        "SlurmCluster",
        {"spec": {"priorities": [{"qos": "urgent", "priority": 2000000000}]}},
        r"spec.priorities\[0\].priority .* less than or equal to 1000000000",
    ),
    ("SlurmCluster", {"spec": {"pollSeconds": 0}}, "spec.pollSeconds .* greater than or equal to 1"),
    (
        "BatchPool",
        {"spec": {"nodeSelector": {"example.com/admission": None}}},
        "spec.nodeSelector: .* must have a label of the nodes, such as .*: no pool may take all nodes",
    ),
    ("BatchPool", {"spec": {"nodeSelector": None}}, "spec.nodeSelector: Required value"),
    ("BatchPool", {"metadata": {"name": LONG}}, "`metadata.name` must be no longer than 63 characters"),
    (
        "BatchPool",
        {"spec": {"lending": {"headroom": {"low": 3, "high": 2}}}},
        "spec.lending.headroom: .* `low` must not be above `high`: raise `high`, or lower `low`",
    ),
    ("BatchPool", {"spec": {"lending": {"headroom": {"low": 1}}}}, "`low` must not be above `high`: raise `high`"),
    (
        "BatchPool",
        {"spec": {"lending": {"floor": 3, "cap": 2}}},
        "spec.lending: .* `floor` must not be above `cap`: raise `cap`, leave it away for no limit, or lower `floor`",
    ),
    ("BatchPool", {"spec": {"lending": {"idleSeconds": 0}}}, "spec.lending.idleSeconds .* greater than or equal to 1"),
    (
        "BatchPool",
        {"spec": {"lending": {"kubernetes": {"floor": 3, "cap": 2}}}},
        "spec.lending.kubernetes: .* `floor` must not be above `cap`: raise `cap`, leave it away for no limit",
    ),
    (
        "BatchPool",
        {"spec": {"lending": {"kubernetes": {"cap": 2}, "headroom": {"low": 3, "high": 3}}}},
        "spec.lending: .* `headroom.low` must not be above `kubernetes.cap`: so many free nodes could never be had",
    ),
    (
        "BatchPool",
        windows({}),
        r"spec.lending.windows\[0\]: .* must change something: give it `policy`, `floor`, `cap`,",
    ),
    (
        "BatchPool",
        windows({"schedule": "0 8 * *", "cap": 1}),
        r"spec.lending.windows\[0\].schedule: .* must be five cron fields .*, such as `0 8 \* \* 1-5`",
    ),
    ("BatchPool", windows({"schedule": "0 0 8 * * 1-5", "cap": 1}), "must be five cron fields"),
    ("BatchPool", windows({"schedule": "every morning, at eight", "cap": 1}), "must be five cron fields"),
    ("BatchPool", windows({"timeZone": "Europe/Berlin; rm", "cap": 1}), "must be an IANA time zone, such as `Europe/B"),
    ("BatchPool", windows({"timeZone": "../etc/passwd", "cap": 1}), "must be an IANA time zone"),
    ("BatchPool", windows({"durationSeconds": 59, "cap": 1}), "durationSeconds .* greater than or equal to 60"),
    ("BatchPool", windows({"durationSeconds": 604801, "cap": 1}), "durationSeconds .* less than or equal to 604800"),
    ("BatchPool", windows(*[{"cap": 1}] * 17), "spec.lending.windows: Too many: 17: must have at most 16 items"),
    (
        "BatchPool",
        windows({"floor": 3, "cap": 2}),
        "with what it takes from the pool, `floor` must not be above `cap`",
    ),
    ("BatchPool", windows({"floor": 3}, cap=2), "with what it takes from the pool, `floor` must not be above `cap`"),
    ("BatchPool", windows({"cap": 2}, floor=3), "with what it takes from the pool, `floor` must not be above `cap`"),
    (
        "BatchPool",
        windows({"headroom": {"low": 3, "high": 4}}, kubernetes={"cap": 2}),
        "in each window, with what it takes from the pool, `headroom.low` must not be above `kubernetes.cap`",
    ),
    (
        "BatchPool",
        windows({"kubernetes": {"cap": 2}}, headroom={"low": 3, "high": 4}),
        "`headroom.low` must not be above `kubernetes.cap`",
    ),
    (
        "BatchPool",
        {"spec": {"recall": {"fast": {"requeueSeconds": 0}}}},
        "requeueSeconds .* greater than or equal to 1",
    ),
    ("BatchPool", {"spec": {"recall": {"nonRequeueableSeconds": 0}}}, "greater than or equal to 1"),
    (
        "BatchPool",
        {"spec": {"gpuResourceNames": ["gpu"]}},
        "spec.gpuResourceNames: .* must be extended resources, such as `nvidia.com/gpu`",
    ),
    ("BatchPool", {"spec": {"gpuResourceNames": []}}, "spec.gpuResourceNames .* at least 1 item"),
    (
        "BatchPool",
        {"spec": {"partition": "lent,debug"}},
        "spec.partition: .* must be one partition; make a pool for each partition",
    ),
    (
        "BatchPool",
        {"spec": {"features": ["lent,a100"]}},
        "spec.features: .* must be Slurm features: letters, digits, `_`, `.` and `-` only, one in each entry",
    ),
    ("BatchPool", {"spec": {"stopPolicy": "Drain"}}, 'supported values: "None", "Hold", "HoldAndDrain"'),
    ("BatchPool", {"spec": {"lever": "Label"}}, 'spec.lever: .* supported values: "Pod"'),
    ("BatchPool", {"spec": {"mode": "Advise"}}, 'spec.mode: .* supported values: "Enforce", "Recommend"'),
    ("BatchPool", {"spec": {"dryRun": True}}, 'unknown field "spec.dryRun"'),
    ("NodeLoan", {"metadata": {"name": LONG}}, "`metadata.name` must be no longer than 63 characters"),
    (
        "NodeLoan",
        {"spec": {"back": {"reason": "Maintenance", "recallClass": "quick"}}},
        "spec: .* `back` says why the node returns: set `wanted: Returned` with it, or leave `back` away",
    ),
    (
        "NodeLoan",
        {"spec": {"wanted": "Returned", "back": {"reason": "new disks", "recallClass": "quick"}}},
        "spec.back.reason: .* must be one CamelCase word, such as `Maintenance`; sentences go into `message`",
    ),
    ("NodeLoan", {"spec": {"wanted": "Recalled"}}, 'spec.wanted: .* supported values: "Lent", "Returned"'),
    ("NodeLoan", {"spec": {"gpus": 0}}, "spec.gpus .* greater than or equal to 1"),
    ("CapacityClaim", {"metadata": {"name": LONG}}, "`metadata.name` must be no longer than 63 characters"),
    ("CapacityClaim", {"spec": {"nodes": 0}}, "spec.nodes .* greater than or equal to 1"),
    ("CapacityClaim", {"spec": {"nodes": 10001}}, "spec.nodes .* less than or equal to 10000"),
    (
        "CapacityClaim",
        {"spec": {"nodes": 2, "gpus": 8}},
        "spec: .* the amount is either in `nodes` or in `gpus`: leave one of them away",
    ),
    ("CapacityClaim", {"spec": {"gpus": 0}}, "spec.gpus .* greater than or equal to 1"),
    ("CapacityClaim", {"spec": {"gatherSeconds": 86401}}, "spec.gatherSeconds .* less than or equal to 86400"),
    ("CapacityClaim", {"spec": {"durationSeconds": 0}}, "spec.durationSeconds .* greater than or equal to 1"),
    ("BatchPool", {"spec": {"claims": {"quotas": [{"namespace": "ml"}]}}}, "nodes: Required value"),
    (
        "CapacityClaim",
        {"spec": {**LATER, "durationSeconds": None}},
        "a claim with a `startTime` is a reservation and needs an end: set `durationSeconds`",
    ),
    ("CapacityClaim", {"spec": {**LATER, "ttlSeconds": 60}}, "`ttlSeconds` counts from when the claim was made: with"),
    ("CapacityClaim", {"spec": {**LATER, "startTime": "next Monday"}}, "spec.startTime: .* date-time"),
    ("CapacityClaim", {"spec": {"ttlSeconds": 0}}, "spec.ttlSeconds .* greater than or equal to 1"),
    ("CapacityClaim", {"spec": {"recallClass": "now"}}, 'supported values: "graceful", "quick", "fast"'),
]

CHANGES_TAKEN = [
    ("BatchPool", {}, {"spec": {"nodeSelector": {"example.com/admission": "other"}}}),
    ("BatchPool", {}, {"spec": {"stopPolicy": "HoldAndDrain"}}),
    ("NodeLoan", {}, {"spec": {"wanted": "Returned"}}),
    (
        "NodeLoan",
        {"spec": {"wanted": "Returned"}},
        {"spec": {"back": {"reason": "Claimed", "recallClass": "quick"}}},
    ),
    ("CapacityClaim", {}, {"spec": {"nodes": 2}}),
    ("CapacityClaim", {"spec": {"nodes": 2}}, {"spec": {"nodes": None, "gpus": 16}}),
    ("CapacityClaim", {}, {"spec": {"gang": True, "durationSeconds": 60, "recallClass": "fast"}}),
    ("CapacityClaim", {"spec": LATER}, {"spec": {"nodes": 2, "durationSeconds": 7200}}),
    ("CapacityClaim", {"spec": {"holderRef": HOLDER}}, {"spec": {"nodes": 2}}),
    ("NodeLoan", {"spec": {"takenFor": JOB}}, {"spec": {"wanted": "Returned"}}),
]

_LASTING = "only `wanted` and `back` of a loan can be changed: set `wanted: Returned` to get the node back"

CHANGES_REFUSED = [
    ("CapacityClaim", {}, {"spec": LATER}, "`startTime` cannot be changed: delete the claim and make a new one"),
    (
        "CapacityClaim",
        {"spec": LATER},
        {"spec": {"startTime": "2031-02-03T09:00:00Z"}},
        "`startTime` cannot be changed: delete the claim and make a new one",
    ),
    ("NodeLoan", {}, {"spec": {"poolName": "other"}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"nodeName": "other"}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"slurmNodeName": "other"}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"gpuResourceName": "amd.com/gpu"}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"gpus": 3}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"priority": 5}}, _LASTING),
    ("NodeLoan", {}, {"spec": {"takenFor": JOB}}, "`takenFor` of a loan cannot be changed: it says why the loan was"),
    ("NodeLoan", {"spec": {"takenFor": JOB}}, {"spec": {"takenFor": {"nodes": 1}}}, "`takenFor` of a loan cannot be"),
    ("NodeLoan", {"spec": {"takenFor": JOB}}, {"spec": {"takenFor": None}}, "`takenFor` of a loan cannot be changed"),
    (
        "NodeLoan",
        {"spec": {"wanted": "Returned"}},
        {"spec": {"wanted": "Lent"}},
        "a loan that is wanted back cannot go back to `Lent`: leave `wanted: Returned`, lending the node again",
    ),
    (
        "NodeLoan",
        {"spec": {"wanted": "Returned"}},
        {"spec": {"wanted": None}},
        "a loan that is wanted back cannot go back to `Lent`",
    ),
    (
        "CapacityClaim",
        {},
        {"spec": {"poolName": "other"}},
        "spec.poolName: .* `poolName` cannot be changed: delete the claim and make a new one",
    ),
    (
        "CapacityClaim",
        {"spec": {"nodeSelector": {"example.com/zone": "b"}}},
        {"spec": {"nodeSelector": {"example.com/zone": "c"}}},
        "spec.nodeSelector: .* `nodeSelector` cannot be changed: delete the claim and make a new one",
    ),
    ("CapacityClaim", {"spec": {"nodes": 2}}, {"spec": {"gpus": 16}}, "the amount is either in `nodes` or in `gpus`"),
    (
        "CapacityClaim",
        {},
        {"spec": {"holderRef": HOLDER}},
        "spec: .* `holderRef` cannot be changed: delete the claim and make a new one",
    ),
    (
        "CapacityClaim",
        {"spec": {"holderRef": HOLDER}},
        {"spec": {"holderRef": {"uid": "2"}}},
        "`holderRef` cannot be changed",
    ),
    ("CapacityClaim", {"spec": {"holderRef": HOLDER}}, {"spec": {"holderRef": None}}, "`holderRef` cannot be changed"),
]


def words(change: object) -> str:
    return change if isinstance(change, str) else json.dumps(change)[:70]


@pytest.mark.parametrize(("kind", "change"), TAKEN, ids=words)
def test_taken(kubectl: Kubectl, kind: str, change: Manifest) -> None:
    kubectl.must("create", "--dry-run=server", "-f", "-", manifest=changed(BASES[kind], change))


@pytest.mark.parametrize(("kind", "change", "sentence"), REFUSED, ids=words)
def test_refused_with_the_way_out(kubectl: Kubectl, kind: str, change: Manifest, sentence: str) -> None:
    refusal = kubectl("create", "--dry-run=server", "-f", "-", manifest=changed(BASES[kind], change))
    assert refusal.returncode == 1
    assert_says(refusal.stderr, sentence)


@pytest.fixture
def stored(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[Manifest]:
    """A base with the change that the test's parameters start from, in the API server until the test is over."""
    kind, start = request.param
    manifest = changed(BASES[kind], start)
    manifest["metadata"]["name"] += "-stored"
    kubectl.must("create", "-f", "-", manifest=manifest)
    yield manifest
    kubectl.must("delete", "--wait=true", "--timeout=30s", kind, manifest["metadata"]["name"])


@pytest.mark.parametrize(("stored", "change"), [((k, s), c) for k, s, c in CHANGES_TAKEN], indirect=["stored"])
def test_change_taken(kubectl: Kubectl, stored: Manifest, change: Manifest) -> None:
    kubectl.must(*patch(stored, change))


@pytest.mark.parametrize(
    ("stored", "change", "sentence"), [((k, s), c, w) for k, s, c, w in CHANGES_REFUSED], indirect=["stored"]
)
def test_change_refused_with_the_way_out(kubectl: Kubectl, stored: Manifest, change: Manifest, sentence: str) -> None:
    refusal = kubectl(*patch(stored, change))
    assert refusal.returncode == 1
    assert_says(refusal.stderr, sentence)


def patch(stored: Manifest, change: Manifest) -> tuple[str, ...]:
    name = f"{stored['kind']}/{stored['metadata']['name']}"
    return ("patch", name, "--dry-run=server", "--type=merge", "-p", json.dumps(change))


def assert_says(text: str, sentence: str) -> None:
    assert re.search(sentence, text), text


def test_half_an_object_is_filled_and_shown(kubectl: Kubectl) -> None:
    half = changed(POOL, {"spec": {"recall": {"graceful": {"drainSeconds": 7}}}})
    shown = json.loads(kubectl.must("create", "--dry-run=server", "-o", "json", "-f", "-", manifest=half))["spec"]
    assert shown["recall"]["graceful"] == {"drainSeconds": 7, "checkpointSeconds": 120, "requeueSeconds": 30}
    assert shown["lending"]["headroom"] == {"low": 0, "high": 0}
    assert shown["lending"]["flapBudget"] == {"loans": 6, "windowSeconds": 3600}


@pytest.fixture(scope="module")
def quota_policy(kubectl: Kubectl, lab: Lab) -> Iterator[None]:
    """The chart's policy at work on a stored pool, beside the definitions."""
    chart = ["template", "tidegate", str(REPOSITORY / "helm" / "tidegate"), "--show-only", "templates/claimquota.yaml"]
    shown = subprocess.run([lab.tool("helm"), *chart], check=True, capture_output=True, text=True).stdout
    policies = [manifest for manifest in yaml.safe_load_all(shown) if manifest]
    was_there = kubectl("get", "validatingadmissionpolicy", policies[0]["metadata"]["name"]).returncode == 0
    for manifest in policies:
        kubectl.must("apply", "--server-side", "--force-conflicts", "-f", "-", manifest=manifest)
    kubectl.must("create", "-f", "-", manifest=LIMITED)
    deadline = time.monotonic() + 60
    while kubectl("create", "--dry-run=server", "-f", "-", manifest=wish(nodes=9)).returncode == 0:
        assert time.monotonic() < deadline, "the API server does not ask the policy"
        time.sleep(0.2)
    yield
    kubectl.must("delete", "--timeout=30s", "batchpool", LIMITED["metadata"]["name"])
    if not was_there:
        for manifest in policies:
            kubectl.must("delete", manifest["kind"], manifest["metadata"]["name"])


QUOTAS = [
    {"nodes": 5},
    {"namespace": "default", "nodes": 3},
    {"namespace": "kube-system", "nodes": 0},
    {"priorityClassName": "low", "nodes": 1},
    {"namespace": "default", "priorityClassName": "mean", "nodes": 2},
]
LIMITED = changed(POOL, {"metadata": {"name": "limited"}, "spec": {"claims": {"quotas": QUOTAS}}})


def wish(**spec: Any) -> Manifest:
    return changed(CLAIM, {"metadata": {"namespace": "default"}, "spec": {"poolName": "limited", **spec}})


WITHIN = [{}, {"nodes": 3}, {"gpus": 4000}, {"nodes": 1, "priorityClassName": "low"}, {"nodes": 9, "poolName": "other"}]
BEYOND = [
    (
        {"nodes": 4},
        "asks for 4 nodes, but namespace default may claim 3 of pool limited at a time: lower `nodes`, "
        "or ask for more in `spec.claims.quotas` of the pool",
    ),
    ({"nodes": 6}, "asks for 6 nodes, but all claims together may claim 5 of pool limited"),
    ({"nodes": 2, "priorityClassName": "low"}, "but PriorityClass low may claim 1 of pool limited"),
    ({"nodes": 3, "priorityClassName": "mean"}, "but namespace default with PriorityClass mean may claim 2 of pool"),
]


@pytest.mark.usefixtures("quota_policy")
@pytest.mark.parametrize("spec", WITHIN, ids=words)
def test_a_claim_within_the_quotas_is_taken(kubectl: Kubectl, spec: Manifest) -> None:
    kubectl.must("create", "--dry-run=server", "-f", "-", manifest=wish(**spec))


@pytest.mark.usefixtures("quota_policy")
@pytest.mark.parametrize(("spec", "sentence"), BEYOND, ids=words)
def test_a_claim_beyond_a_quota_is_refused(kubectl: Kubectl, spec: Manifest, sentence: str) -> None:
    refusal = kubectl("create", "--dry-run=server", "-f", "-", manifest=wish(**spec))
    assert refusal.returncode == 1
    assert sentence in refusal.stderr, refusal.stderr


@pytest.mark.usefixtures("quota_policy")
def test_an_automatic_claim_is_as_large_as_its_pods_need(kubectl: Kubectl) -> None:
    automatic = changed(wish(nodes=4), {"metadata": {"labels": {"tidegate.dev/claim": "uid-of-a-deployment"}}})
    kubectl.must("create", "--dry-run=server", "-f", "-", manifest=automatic)


@pytest.mark.usefixtures("quota_policy")
def test_a_claim_that_is_over_a_lowered_quota_may_be_changed_but_not_grow(kubectl: Kubectl) -> None:
    kubectl.must("create", "-f", "-", manifest=wish(nodes=3))
    try:
        lower = {"spec": {"claims": {"quotas": [{"nodes": 2}]}}}
        kubectl.must("patch", "batchpool/limited", "--type=merge", "-p", json.dumps(lower))
        deadline = time.monotonic() + 60
        while kubectl("create", "--dry-run=server", "-f", "-", manifest=wish(nodes=3)).returncode == 0:
            assert time.monotonic() < deadline, "the policy does not see the lowered quota"
            time.sleep(0.1)
        owner = {"metadata": {"labels": {"team": "a"}}}
        change = ("patch", "capacityclaim/admission", "--namespace=default", "--type=merge", "-p")
        kubectl.must(*change, json.dumps(owner))
        kubectl.must(*change, json.dumps({"spec": {"nodes": 2}}))
        refusal = kubectl(*change, json.dumps({"spec": {"nodes": 3}}))
        assert "all claims together may claim 2 of pool limited" in refusal.stderr
    finally:
        kubectl.must("delete", "capacityclaim", "admission", "--namespace=default")
        kubectl.must("patch", "batchpool/limited", "--type=merge", "-p", json.dumps({"spec": LIMITED["spec"]}))


EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {m["kind"] for path in EXAMPLES for m in yaml.safe_load_all(path.read_text())} >= {
        "SlurmCluster",
        "BatchPool",
        "CapacityClaim",
        "InferenceService",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_taken(kubectl: Kubectl, example: Path) -> None:
    kubectl.must("apply", "--dry-run=server", "-f", str(example))
