"""A node goes to Slurm when jobs wait for it, and comes home when they do not."""

from __future__ import annotations

from e2e.stage import PRIORITY, Stage, reason

GPU_REPORT = '#!/bin/bash\necho "gpus=$CUDA_VISIBLE_DEVICES node=$SLURMD_NODENAME"\nsleep 1\n'


def test_an_idle_node_is_lent_to_a_waiting_job_and_comes_home_when_slurm_has_no_use_for_it(stage: Stage) -> None:
    job = stage.submit(GPU_REPORT, "--job-name=report")
    (loan,) = stage.wait_lent(1)
    ended = stage.wait_job(job, "COMPLETED")
    assert ended["nodes"] == loan["spec"]["slurmNodeName"]
    output = (stage.lab.shared_dir / f"report-{job}.out").read_text()
    assert output.split() == ["gpus=0,1", f"node={loan['spec']['slurmNodeName']}"]
    stage.wait_home()
    (ended_loan,) = stage.loans(open_only=False)
    assert reason(ended_loan, "Recalled") == "IdleInSlurm"
    assert stage.slurm_nodes() == {}


def test_jobs_of_one_gpu_share_a_node_and_two_nodes_go_out_for_a_job_of_two(stage: Stage) -> None:
    halves = [stage.submit(GPU_REPORT, f"--job-name=half{n}", gpus=1) for n in range(2)]
    pair = stage.submit('#!/bin/bash\nsrun hostname > "/shared/pair.hosts"\n', "--nodes=2", "--ntasks-per-node=1")
    for job in halves:
        stage.wait_job(job, "COMPLETED")
    ended = stage.wait_job(pair, "COMPLETED", seconds=40)
    assert ended["node_count"]["number"] == 2
    assert len(set((stage.lab.shared_dir / "pair.hosts").read_text().split())) == 2
    devices = {(stage.lab.shared_dir / f"half{n}-{job}.out").read_text().split()[0] for n, job in enumerate(halves)}
    assert devices <= {"gpus=0", "gpus=1"}
    stage.wait_home()


def test_nothing_is_lent_while_a_service_holds_the_gpus_or_nobody_waits(stage: Stage) -> None:
    stage.deployment("busy", 3)
    stage.wait_running("busy", 3)
    job = stage.sleep_job(1)
    stage.wait_condition("batchpools", "idle-gpus", "True", "Working")
    assert stage.loans(open_only=False) == []
    assert "PENDING" in stage.state(job)
    stage.scale("busy", 2)
    stage.wait_job(job, "COMPLETED", seconds=40)
    assert [loan["spec"]["priority"] < PRIORITY for loan in stage.loans(open_only=False)] == [True]
