"""What a pool's terms come to: windows, and how many nodes each side has."""

from __future__ import annotations

from datetime import UTC, datetime

from e2e.audit import asked
from e2e.operator import wait_for
from e2e.stage import POOL, Stage, reason


def test_a_window_that_opens_lends_and_one_that_closes_recalls(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(lending={"cap": 0})
    job = stage.sleep_job(60)
    stage.wait_condition("batchpools", POOL, "True", "Working")
    assert stage.loans(open_only=False) == []
    now = datetime.now(UTC)
    # Of this minute and the next, so that it is open also when the minute has just passed.
    window = {"schedule": f"{now.minute},{(now.minute + 1) % 60} * * * *", "durationSeconds": 120, "cap": 1}
    unreadable = {"schedule": "0 24 * * *", "durationSeconds": 60, "cap": 3}
    stage.patch_pool({"lending": {"windows": [unreadable, window]}})
    words = stage.wait_condition("batchpools", POOL, "False", "WindowUnreadable", "WindowsReadable")
    assert words.startswith("lending.windows[0].schedule `0 24 * * *` is no cron schedule (Bad hour)")
    stage.wait_lent(1)
    stage.wait_job(job, "RUNNING")
    pool = stage.kube.get("batchpools", POOL)
    assert pool is not None
    assert pool["status"]["window"]["number"] == 1
    stage.patch_pool({"lending": {"windows": []}})
    stage.wait_home()
    assert [reason(loan, "Recalled") for loan in stage.loans(open_only=False)] == ["CapLowered"]
    assert "PENDING" in stage.state(job), "its job is requeued, not lost"


def test_what_is_kubernetes_and_what_is_slurms_own(bare_stage: Stage) -> None:
    """Two of three nodes may be lent, and of these one claim gets back one: the third is Slurm's guaranteed share."""
    stage = bare_stage
    stage.set_up(lending={"kubernetes": {"floor": 1, "cap": 2}})
    for _ in range(3):
        stage.sleep_job(120)
    stage.wait_lent(2)
    stage.claim("wish", nodes=3, recallClass="fast")
    wait_for("the nodes of the cap", lambda: len(stage.lent()) == 1 and not stage.returning(), 40)
    words = stage.wait_condition("capacityclaims", "wish", "False", "KubernetesCap", "Satisfied")
    assert words == f"pool {POOL} takes no node back for Kubernetes beyond its kubernetes.cap 2"
    assert len(stage.lent()) == 1


def test_a_warm_node_serves_a_pod_at_once_and_the_next_is_freed_before_anybody_asks(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(lending={"headroom": {"low": 1, "high": 1}})
    for _ in range(3):
        stage.sleep_job(120)
    stage.wait_lent(2)
    stage.deployment("burst", 1)
    stage.wait_running("burst", 1)
    assert stage.claims() == [], "nobody had to claim the node"
    wait_for("a warm node again", lambda: len(stage.lent()) == 1 and not stage.returning(), 40)
    assert [reason(loan, "Recalled") for loan in stage.loans(open_only=False) if reason(loan, "Recalled")] == [
        "HeadroomLow"
    ]


def test_a_pool_that_recommends_says_what_it_would_do_and_touches_nothing(bare_stage: Stage) -> None:
    stage, began = bare_stage, datetime.now(UTC)
    stage.set_up(mode="Recommend", lending={"idleReturnSeconds": 2})
    before = {name: (stage.node(name)["metadata"]["labels"], stage.fence(name)) for name in stage.lab.workers}
    job = stage.sleep_job(60)
    (name,) = wait_for("a recommended node", lambda: recommended(stage), 20)
    assert "PENDING" in stage.state(job)
    wait_for("an event on the node", lambda: told(stage, "WouldLend", "Node", name, began), 10)
    stage.claim("wish")
    words = stage.wait_condition("capacityclaims", "wish", "False", "Recommended", "Satisfied")
    assert words.startswith(f"pool {POOL} has mode Recommend and touches nothing; it would hold")
    stage.lab.slurm("scancel", str(job))
    wait_for("its end", lambda: told(stage, "WouldRecall", "BatchPool", POOL, began) and not recommended(stage), 20)
    after = {name: (stage.node(name)["metadata"]["labels"], stage.fence(name)) for name in stage.lab.workers}
    assert after == before
    assert stage.loans(open_only=False) == []
    assert stage.slurm_nodes() == {}
    pool = stage.kube.get("batchpools", POOL)
    assert pool is not None
    assert "finalizers" not in pool["metadata"]
    writes = {right[2:] for _, right in asked(stage.lab, began) if right[3] not in ("get", "list", "watch")}
    allowed = {("batchpools/status", "patch"), ("slurmclusters/status", "patch"), ("capacityclaims/status", "patch")}
    assert writes == allowed | {("events", "create"), ("leases", "patch")}


def recommended(stage: Stage) -> list[str]:
    """The nodes that the pool would have lent."""
    pool = stage.kube.get("batchpools", POOL) or {}
    return [one["name"] for one in pool.get("status", {}).get("recommended", {}).get("nodes", [])]


def told(stage: Stage, reason: str, kind: str, name: str, since: datetime) -> bool:
    """Whether there is such an event on the object."""
    found = stage.kube.list("events", "default", fieldSelector=f"involvedObject.name={name},reason={reason}")
    since = since.replace(microsecond=0)  # creation times have whole seconds
    times = [one["metadata"]["creationTimestamp"] for one in found if one["involvedObject"]["kind"] == kind]
    return any(datetime.fromisoformat(time) >= since for time in times)
