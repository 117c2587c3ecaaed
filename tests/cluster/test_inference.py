"""The objects of an InferenceService: what is in them, and what a template may and may not say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.services import service
from tidegate.api import InferenceService
from tidegate.cluster import inference
from tidegate.cluster.client import Json

GATE = "registry.example/tidegate:1"
PVC = {"persistentVolumeClaim": "models", "path": "tiny/model.gguf"}


def deployment(one: InferenceService | None = None, **spec: Any) -> Json:
    return inference.deployment(one or service(**spec), 2, GATE, "mark")


def pod(**spec: Any) -> Json:
    found: Json = deployment(**spec)["spec"]["template"]["spec"]
    return found


def server(**spec: Any) -> Json:
    found: Json = pod(**spec)["containers"][0]
    return found


def gate(**spec: Any) -> Json:
    found: Json = pod(**spec)["initContainers"][0]
    return found


def preset(name: str, **more: Any) -> dict[str, Any]:
    return {"server": None, "preset": {"name": name, **more}, "model": PVC}


def test_all_is_owned_by_the_service_and_carries_its_label_and_mark() -> None:
    one = service()
    objects = [
        inference.deployment(one, 1, GATE, "mark"),
        inference.front(one, "mark"),
        inference.budget(one, "mark"),
        inference.warm_claim(one, 1, "mark"),
    ]
    for made in objects:
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("InferenceService", "uid-chat", True)
        assert made["metadata"]["labels"]["tidegate.dev/inference-service"] == "chat"
        assert made["metadata"]["annotations"]["tidegate.dev/made-from"] == "mark"
        assert made["metadata"]["namespace"] == "team"
    assert [made["kind"] for made in objects] == [
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "CapacityClaim",
    ]


def test_service_and_budget_find_the_pods() -> None:
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert deployment()["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert inference.front(service(), "")["spec"]["selector"].items() <= labels.items()
    assert inference.budget(service(), "")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_requests_come_in_at_the_gate_which_outlives_the_server() -> None:
    assert inference.front(service(), "")["spec"]["ports"][0] | {"name": ""} == {
        "name": "",
        "port": 80,
        "targetPort": 8080,
        "protocol": "TCP",
    }
    # A sidecar of the kubelet: started before the containers, ended after them.
    assert gate()["restartPolicy"] == "Always"
    assert "--server-port=8000" in gate()["command"]
    assert gate()["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8081}


def test_a_server_is_ended_by_a_drain_which_only_the_kubelet_may_ask_for() -> None:
    asked = server(drainSeconds=90)["lifecycle"]["preStop"]["httpGet"]
    assert (asked["path"], asked["port"]) == ("/drain", 8081)
    assert asked["httpHeaders"] == [{"name": "Tidegate-Drain", "value": "uid-chat"}]
    assert gate()["env"] == [{"name": "TIDEGATE_DRAIN_TOKEN", "value": "uid-chat"}]
    assert "--drain-seconds=90" in gate(drainSeconds=90)["command"]
    assert pod(drainSeconds=90)["terminationGracePeriodSeconds"] == 120


def test_a_new_replica_answers_before_an_old_one_goes() -> None:
    assert deployment()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_readiness_asks_as_it_is_told() -> None:
    command = gate(readiness={"path": "/v1/chat/completions", "model": "big", "intervalSeconds": 5})["command"]
    assert {"--path=/v1/chat/completions", "--model=big", "--interval-seconds=5", "--timeout-seconds=30"} <= set(
        command
    )
    assert not any(word.startswith("--model") for word in gate()["command"])


def test_a_server_of_ones_own_is_as_it_says() -> None:
    own = {"image": "s:1", "command": ["run"], "args": ["-v"], "env": [{"name": "A", "value": "1"}], "port": 9000}
    made = server(server=own, gpusPerReplica=4, gpuResourceName="amd.com/gpu")
    assert (made["command"], made["args"], made["env"]) == (["run"], ["-v"], [{"name": "A", "value": "1"}])
    assert made["resources"]["limits"] == {"amd.com/gpu": "4"}
    assert "--server-port=9000" in gate(server=own)["command"]


def test_without_gpus_none_is_asked_for() -> None:
    assert "resources" not in server(gpusPerReplica=0)


def test_vllm_serves_the_model_on_all_gpus_of_a_replica() -> None:
    made = server(**preset("vllm", args=["--max-model-len", "4096"]), gpusPerReplica=4)
    assert made["command"] == ["vllm", "serve", "/models/tiny/model.gguf"]
    assert made["args"] == [
        *("--served-model-name", "chat", "--host", "127.0.0.1", "--port", "8000"),
        *("--tensor-parallel-size", "4", "--max-model-len", "4096"),
    ]
    assert [one["name"] for one in made["volumeMounts"]] == ["model", "shm"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod(**preset("vllm"))["volumes"]


def test_llama_cpp_is_told_the_model_and_where_to_listen() -> None:
    made = server(**preset("llama.cpp", image="llama:1"))
    assert made["image"] == "llama:1"
    assert "command" not in made
    assert made["args"] == ["--model", "/models/tiny/model.gguf", "--host", "127.0.0.1", "--port", "8000"]


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        (PVC, {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}),
        ({"image": {"reference": "m:1"}}, {"image": {"reference": "m:1", "pullPolicy": "IfNotPresent"}}),
        ({"volume": {"nfs": {"server": "s", "path": "/m"}}}, {"nfs": {"server": "s", "path": "/m"}}),
    ],
)
def test_the_model_is_mounted_read_only(source: dict[str, Any], volume: Json) -> None:
    assert pod(model=source)["volumes"] == [{"name": "model", **volume}]
    assert server(model=source)["volumeMounts"] == [{"name": "model", "mountPath": "/models", "readOnly": True}]


def test_replicas_of_a_service_with_warm_room_carry_the_label_of_its_claim() -> None:
    labels = deployment(warmReplicas=1, poolName="batch")["spec"]["template"]["metadata"]["labels"]
    assert labels["tidegate.dev/claim"] == "chat-warm"
    assert "tidegate.dev/claim" not in deployment()["spec"]["template"]["metadata"]["labels"]


def test_the_warm_claim_is_as_important_as_the_replicas() -> None:
    made = inference.warm_claim(service(poolName="batch", warmReplicas=1), 3, "")
    assert made["spec"] == {"poolName": "batch", "nodes": 3, "priorityClassName": "high"}
    assert "priorityClassName" not in inference.warm_claim(service(priorityClassName=None), 1, "")["spec"]


def test_a_template_adds_to_the_replicas() -> None:
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"a": "b"}},
        "spec": {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"operator": "Exists"}],
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "containers": [
                {
                    "name": "server",
                    "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
                    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                },
                {"name": "exporter", "image": "e"},
            ],
        },
    }
    made = deployment(template=template, model=PVC)["spec"]["template"]
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["spec"]["nodeSelector"] == {"zone": "a"}
    assert [one["name"] for one in made["spec"]["volumes"]] == ["model", "cache"]
    first, second = made["spec"]["containers"]
    assert first["resources"] == {
        "requests": {"nvidia.com/gpu": "2", "cpu": "2"},
        "limits": {"nvidia.com/gpu": "2", "memory": "8Gi"},
    }
    assert [one["mountPath"] for one in first["volumeMounts"]] == ["/models", "/cache"]
    assert second["name"] == "exporter"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"containers": []}, "spec.template.containers is not read; a template has metadata and spec here."),
        ({"spec": {"nodeName": "n"}}, "spec.template.spec.nodeName is not for templates, Tidegate decides it"),
        ({"spec": {"priorityClassName": "low"}}, "spec.template.spec.priorityClassName is Tidegate's own ('high')"),
        ({"spec": {"terminationGracePeriodSeconds": 1}}, "terminationGracePeriodSeconds is Tidegate's own (150)"),
        (
            {"spec": {"containers": [{"name": "server", "livenessProbe": {}}]}},
            "spec.template.spec.containers[server].livenessProbe is not for templates, `server` or `preset`",
        ),
        (
            {"metadata": {"labels": {"tidegate.dev/inference-service": "other"}}},
            "spec.template.metadata.labels.tidegate.dev/inference-service is Tidegate's own ('chat'); leave it out.",
        ),
    ],
)
def test_a_template_that_contradicts_is_one_sentence(template: Json, words: str) -> None:
    problem = inference.template_problem(service(template=template))
    assert problem is not None
    assert problem.startswith("InferenceService team/chat: spec.template")
    assert words in problem


def test_a_good_template_is_no_problem() -> None:
    assert inference.template_problem(service()) is None
