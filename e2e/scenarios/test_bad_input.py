"""What people get wrong, and the sentence that tells them what to do."""

from __future__ import annotations

import copy
import time

import jwt
import pytest

from e2e.lab import Lab
from e2e.operator import NAMESPACE, Operator, wait_for
from e2e.stage import CLUSTER, GPU, LENDABLE, POOL, SECRET, Stage, condition
from e2e.witness import Witness

SECRET_KEY = f"{NAMESPACE}/{SECRET}"
WEEK = 7 * 24 * 3600


def test_a_selector_that_matches_no_node(bare_stage: Stage) -> None:
    bare_stage.set_up(nodeSelector={"rack": "none-such"})
    words = bare_stage.wait_condition("batchpools", POOL, "False", "NoNodes")
    assert words == "no node has the labels rack=none-such; label nodes or change nodeSelector"


def test_a_selector_that_matches_nodes_without_gpus(bare_stage: Stage) -> None:
    bare_stage.set_up(gpuResourceNames=["amd.com/gpu"])
    words = bare_stage.wait_condition("batchpools", POOL, "False", "NoGpus")
    assert words == "no node of the pool has any of amd.com/gpu; check the device plugin or gpuResourceNames"


def test_two_pools_that_select_the_same_nodes(stage: Stage) -> None:
    stage.wait_condition("batchpools", POOL, "True", "Working")
    time.sleep(1.1)  # creation times have whole seconds, and the older pool shall be the older one
    stage.put_pool("late")
    words = stage.wait_condition("batchpools", "late", "False", "NodesOfOtherPool", "Exclusive")
    listed = ", ".join(f"{node} ({POOL})" for node in sorted(stage.lab.workers))
    assert words == f"older pools have these nodes: {listed}; make the nodeSelectors differ"
    assert stage.ready("batchpools", POOL, "Exclusive")[0] == "True"


def test_a_slurm_cluster_that_does_not_exist(bare_stage: Stage) -> None:
    bare_stage.set_up(slurmClusterName="campsu")
    words = bare_stage.wait_condition("batchpools", POOL, "False", "SlurmClusterNotFound")
    assert words == f"SlurmCluster campsu does not exist; set slurmClusterName to one of {CLUSTER}"


def test_a_partition_that_slurm_does_not_have(bare_stage: Stage) -> None:
    bare_stage.set_up(partition="lnet")
    words = bare_stage.wait_condition("batchpools", POOL, "False", "PartitionNotFound")
    assert words == f"Slurm {CLUSTER} has no partition lnet; it has lent, urgent"


def test_a_template_that_says_what_is_tidegates_to_say(bare_stage: Stage) -> None:
    slurmd = {"image": "none-such", "template": {"spec": {"nodeName": "mine"}}}
    bare_stage.set_up(slurmd=slurmd)
    words = bare_stage.wait_condition("batchpools", POOL, "False", "TemplateUnusable")
    field = "spec.slurmd.template.spec.nodeName"
    assert words == f"BatchPool {POOL}: {field} is not for templates, Tidegate decides it; leave it out."
    assert bare_stage.loans(open_only=False) == []


def cluster_says(stage: Stage, reason: str, secret: dict[str, bytes] | None, **cluster: str) -> str:
    """The sentence of a SlurmCluster with that Secret and spec, and that nothing is lent."""
    stage.set_up(secret=secret, cluster=cluster)
    stage.sleep_job(1)
    words = stage.wait_condition("slurmclusters", CLUSTER, "False", reason)
    stage.wait_condition("batchpools", POOL, "False", "SlurmNotReady")
    assert stage.loans(open_only=False) == []
    return words


def test_a_slurmrestd_that_does_not_answer(bare_stage: Stage) -> None:
    words = cluster_says(bare_stage, "Unreachable", bare_stage.credentials, endpoint="http://127.0.0.1:9")
    assert "127.0.0.1:9" in words


def test_a_key_that_is_not_slurms(bare_stage: Stage) -> None:
    words = cluster_says(bare_stage, "KeyRefused", bare_stage.credentials | {"jwt_hs256.key": b"x" * 32})
    assert words.startswith(
        f"Slurm cluster {CLUSTER} refuses tokens minted from `jwt_hs256.key` of Secret {SECRET_KEY}"
    )
    assert "copy the key again" in words


def test_a_static_token_that_has_expired(bare_stage: Stage) -> None:
    now = int(time.time())
    claims = {"iat": now - WEEK, "exp": now - 60, "sun": "slurm"}
    token = jwt.encode(claims, bare_stage.lab.jwt_key, algorithm="HS256")
    words = cluster_says(bare_stage, "TokenExpired", {"token": token.encode(), "slurm.key": bare_stage.lab.slurm_key})
    assert f"refuses `token` of Secret {SECRET_KEY}: it expired at " in words
    assert "put in a new one" in words


def test_a_static_token_works_while_it_is_good(bare_stage: Stage) -> None:
    lab = bare_stage.lab
    bare_stage.set_up(secret={"token": lab.token().encode(), "slurm.key": lab.slurm_key})
    bare_stage.wait_condition("slurmclusters", CLUSTER, "True", "Answering")


def test_a_secret_without_the_key(bare_stage: Stage) -> None:
    words = cluster_says(bare_stage, "MissingKey", {"slurm.key": bare_stage.lab.slurm_key})
    assert words == (
        f"Secret {SECRET_KEY} has neither `jwt_hs256.key` (the key of auth/jwt) nor `token` (a ready token); "
        "add one of them"
    )


def test_a_secret_that_does_not_exist(bare_stage: Stage) -> None:
    words = cluster_says(bare_stage, "SecretNotFound", None)
    assert f"Secret {SECRET_KEY} does not exist; create it or correct credentialsSecretName" in words


MORE_PROMISED = """
for word; do shift; set -- "$@" "$(echo "$word" | sed s/gpu:2/gpu:9/)"; done
exec slurmd-entrypoint "$@"
"""
"""The lab's gres.conf knows eight devices."""
FEWER_OFFERED = """
for word; do shift; set -- "$@" "$(echo "$word" | sed s/gpu:2/gpu:1/)"; done
exec slurmd-entrypoint "$@"
"""


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [(MORE_PROMISED, "SlurmNodeInvalid", "gres/gpu"), (FEWER_OFFERED, "GpuCountDiffers", "has 1 GPUs, node ")],
    ids=["than-promised", "than-the-node-has"],
)
def test_a_slurmd_that_registers_with_fewer_gpus(bare_stage: Stage, script: str, reason: str, words: str) -> None:
    stage = bare_stage
    container = {"name": "slurmd", "command": ["/bin/sh", "-c", script, "slurmd-entrypoint"]}
    slurmd = {
        "image": stage.lab.slurmd_image,
        "imagePullPolicy": "Never",
        "template": {"spec": {"containers": [container]}},
    }
    stage.set_up(lending={"joinSeconds": 20, "flapBudget": {"loans": 1}, "cap": 1}, slurmd=slurmd)
    job = stage.sleep_job(1)
    loan = wait_for("a loan", stage.loans, 20)[0]
    wait_for("a recall", lambda: recalled(stage, loan["metadata"]["name"]), 40)
    ended = stage.kube.get("nodeloans", loan["metadata"]["name"])
    assert ended is not None
    assert ended["spec"]["back"]["reason"] == reason
    assert words in ended["spec"]["back"]["message"]
    assert "PENDING" in stage.state(job)


def recalled(stage: Stage, name: str) -> bool:
    """Whether that loan is wanted back."""
    loan = stage.kube.get("nodeloans", name)
    return loan is not None and loan["spec"]["wanted"] == "Returned"


def test_a_node_name_that_somebody_else_uses_in_slurm(stage: Stage, witness: Witness) -> None:
    taken = stage.lab.workers[0]
    witness.expect("slurm-node", taken)
    stage.lab.slurm("scontrol", "create", f"NodeName={taken}", "State=CLOUD", "Gres=gpu:2", "Feature=theirs")
    jobs = [stage.sleep_job(1) for _ in range(4)]
    for job in jobs:
        stage.wait_job(job, "COMPLETED", seconds=60)
    assert taken not in {loan["spec"]["nodeName"] for loan in stage.loans(open_only=False)}
    assert taken in stage.slurm_nodes()


def test_a_claim_for_more_nodes_than_the_pool_has(stage: Stage) -> None:
    stage.claim("greedy", nodes=7)
    words = stage.wait_condition("capacityclaims", "greedy", "False", "MoreThanPool", "Satisfied")
    assert words == f"asks for 7 nodes, pool {POOL} has 3; lower nodes or change poolName"


def test_a_claim_on_a_pool_or_a_priority_class_that_does_not_exist(stage: Stage) -> None:
    stage.claim("lost", poolName="nowhere")
    words = stage.wait_condition("capacityclaims", "lost", "False", "PoolNotFound", "Satisfied")
    assert words == f"BatchPool nowhere does not exist; set poolName to one of {POOL}"
    stage.claim("vain", priorityClassName="highest")
    words = stage.wait_condition("capacityclaims", "vain", "False", "PriorityClassNotFound", "Satisfied")
    assert words == "PriorityClass highest does not exist; create it or name another"


def test_definitions_older_than_the_operator(bare_stage: Stage, operator: Operator) -> None:
    operator.stop()
    name, kube = "capacityclaims.tidegate.dev", bare_stage.kube
    crd = kube.get("customresourcedefinitions", name)
    assert crd is not None
    versions = crd["spec"]["versions"]
    older = copy.deepcopy(versions)
    del older[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["recallClass"]
    try:
        kube.patch("customresourcedefinitions", name, {"spec": {"versions": older}})
        # The API server takes its time to tell the new schema.
        wait_for("a refusal", lambda: not starts(operator), 30)
        assert operator.wait_dead(1) == 1
        (line,) = [line for line in operator.output.splitlines() if "CapacityClaim" in line]
        assert (
            "The CRD of CapacityClaim in the cluster lacks the field spec.recallClass: apply the CRDs of release"
            in line
        )
        assert "kubectl apply --server-side -f crds/" in line
        assert "Traceback" not in operator.output
    finally:
        operator.kill()
        kube.patch("customresourcedefinitions", name, {"spec": {"versions": versions}})
    wait_for("an operator that starts", lambda: starts(operator), 30)


def starts(operator: Operator) -> bool:
    """Whether it gets ready; it is ended then."""
    try:
        operator.start()
    except AssertionError:
        return False
    operator.stop()
    return True


def test_a_node_without_the_label_is_left_alone(stage: Stage, lab: Lab, witness: Witness) -> None:
    left_out = lab.workers[0]
    witness.expect("label", left_out)
    stage.kube.patch("nodes", left_out, {"metadata": {"labels": {LENDABLE: None}}})
    jobs = [stage.sleep_job(2) for _ in range(3)]
    for job in jobs:
        stage.wait_job(job, "COMPLETED", seconds=60)
    assert left_out not in {loan["spec"]["nodeName"] for loan in stage.loans(open_only=False)}
    assert condition(stage.node(left_out), "Ready")
    assert GPU in stage.node(left_out)["status"]["allocatable"]
