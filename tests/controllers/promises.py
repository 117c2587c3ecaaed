"""The promises of the design, checked on a site in memory after every step of whatever happens to it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from tests.controllers.restraint import PoolThatRecommends
from tests.controllers.site import URGENT, Recalled, Site
from tidegate.api import CapacityClaim, NodeLoan
from tidegate.api.names import CLAIM_LABEL, claim_fence, claim_of_fence
from tidegate.cluster import views
from tidegate.cluster.kinds import CAPACITY_CLAIMS, DEPLOYMENTS, NODE_LOANS, NODES
from tidegate.sharing.budgets import released_at
from tidegate.sharing.index import created, extra_of
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import amount, is_automatic

GPU = "nvidia.com/gpu"
GPUS_OF_NODE = 2
THEIRS = {
    "metadata": {"name": "theirs"},
    "spec": {"replicas": 0, "template": {"metadata": {}, "spec": {"containers": [{"name": "theirs"}]}}},
}
"""A Deployment that somebody made."""
LONGEST_LEAD = timedelta(seconds=1000)
"""No recall on the site takes as long as this."""


class Promises:
    """Compares each moment with the one before; a broken promise raises AssertionError that says which."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._position = site.kube.resource_version
        self._fences: dict[str, str | None] = {name: node.fence for name, node in site.nodes().items()}
        self._recalled_for: dict[str, tuple[str, int]] = {}
        self._reported: set[int] = set()
        self._deployments = site.kube.resource_version
        self._replicas = -1
        self._whole: set[str] = set()
        self._asked: dict[str, list[CapacityClaim]] = {}
        """By UID each claim as it was when last looked at, and all that it was made since."""
        self._theirs = self._made_by_others()
        self._pool = PoolThatRecommends(site)

    def check(self, known: int = 0) -> None:
        """All promises that can be seen at one moment. All operators have read the watch up to version `known`."""
        self._pool.check(known)
        self._one_owner()
        self._released_to_the_claimant_only()
        self._within_the_flap_budget()
        self._only_lower_priorities_are_recalled()
        self._one_claim_for_each_controller()
        self._the_protected_keep_their_nodes()
        self._gangs_come_whole()
        self._no_job_lost()
        self._foreign_drains_stay()
        self._services_stay_within_their_bounds()
        self._what_others_made_stays()
        self._reservations_wait_for_their_time()
        self._pods_of_others_go_by_their_leave()

    def _one_owner(self) -> None:
        """Promise 1: open to Slurm jobs and open to GPU pods never go together."""
        site = self._site
        holders = {
            pod.node: pod.key
            for pod in site.pods()
            if pod.loan is None and pod.gpus.get(GPU) and pod.phase == "Running"
        }
        nodes = site.nodes()
        for record in site.slurm.nodes.values():
            open_to_jobs = record.alive and not record.drained and not record.down
            jobs = [job.job_id for job in site.slurm.jobs.values() if record.name in job.nodes]
            node = nodes.get(record.name)
            if node is None or not record.extra.startswith(extra_of("")):
                continue
            open_to_pods = node.fence is None and not node.unschedulable
            assert not (open_to_jobs and open_to_pods), f"1: {node.name} is open to both"
            assert not (jobs and open_to_pods), f"1: {node.name} is open to pods while jobs {jobs} are on it"
            assert not (jobs and node.name in holders), f"1: {holders[node.name]} and jobs {jobs} share {node.name}"
            assert not (open_to_jobs and claim_of_fence(node.fence or "")), f"1: {node.name} is a claim's and Slurm's"

    def _released_to_the_claimant_only(self) -> None:
        """Promise 2: what was freed for a claim goes to no loan while that claim lives."""
        for change in self._site.kube.changes_since(self._position):
            self._position = str(change.resource_version)
            if change.kind == NODE_LOANS and change.type == "MODIFIED":
                self._note(views.resource(NodeLoan, change.object))
            if change.kind == CAPACITY_CLAIMS:
                claim = views.resource(CapacityClaim, change.object)
                self._asked.setdefault(claim.metadata.uid, []).append(claim)
                if change.type == "MODIFIED":
                    self._handed_over_whole(claim)
            if change.kind != NODES:
                continue
            node = views.node(change.object)
            before, self._fences[node.name] = self._fences.get(node.name), node.fence
            uid = claim_of_fence(before) if before else None
            if uid and node.fence and node.fence != before:
                raise AssertionError(f"2: {node.name} went from claim {uid} straight to {node.fence}")
            if uid and node.fence is None:
                self._needed_no_more(uid, node.name)
            if before and uid is None and node.fence is None:
                self._not_promised(before)
        self._asked = {claim.metadata.uid: [claim] for claim in self._site.claims()}

    def _needed_no_more(self, uid: str, node: str) -> None:
        """Promise 2: a claim keeps the nodes that it has, as many as it asks for; what a person made of that of a
        service may be corrected in the moment in which it is followed."""
        claim = next((c for c in self._site.claims() if c.metadata.uid == uid and not c.is_over), None)
        if claim is None:
            return
        assert not is_automatic(claim), f"2: {node} was let go before its claim {claim.metadata.name} was over"
        versions = [*self._asked.get(uid, ()), claim]
        enough = any(self._units(version) >= amount(version) for version in versions)
        assert enough, f"2: {node} was let go, and {claim.metadata.name} has too few"

    def _handed_over_whole(self, claim: CapacityClaim) -> None:
        """Promise 2: a gang is told that it has its nodes when it has all of them, and not before."""
        if claim.spec.gang and claim.status.started and claim.metadata.uid not in self._whole:
            self._whole.add(claim.metadata.uid)
            assert self._units(claim) >= amount(claim), f"2: gang {claim.metadata.name} was handed over in part"

    def _units(self, claim: CapacityClaim) -> int:
        held = sum(fence == claim_fence(claim.metadata.uid) for fence in self._fences.values())
        return held * GPUS_OF_NODE if claim.spec.gpus else held

    def _gangs_come_whole(self) -> None:
        """Promise 2: no pod may come onto a gang's nodes before all of them are held."""
        gathering = {claim_fence(c.metadata.uid): c.metadata.name for c in self._site.claims() if is_gathering(c)}
        for pod in self._site.pods():
            early = [gathering[t.value] for t in pod.tolerations if t.value in gathering]
            assert not early, f"2: pod {pod.key} may come onto nodes of gang {early[0]}, which lacks others"

    def _not_promised(self, loan_name: str) -> None:
        """Promise 2: a node whose fence goes was not on its way to a claim that still waits for it."""
        back = self._site.loan(loan_name).spec.back if self._site.has_loan(loan_name) else None
        waiting = {c.metadata.uid for c in self._site.claims() if not c.is_over}
        if back and back.claim:
            assert back.claim.uid not in waiting, f"2: loan {loan_name} opened its node to all, not to its claim"

    def _note(self, loan: NodeLoan) -> None:
        ended = (job for job in loan.status.jobs if job.action in ("Cancelled", "EndedByDown"))
        self._reported |= {job.job_id for job in ended if not job.requeueable}
        if loan.spec.back and loan.spec.back.claim and loan.spec.back.reason == "Claimed":
            # A loan that is on its way already may be given to a claim of any priority.
            worth, taken = loan.spec.priority, loan.spec.taken_for
            if taken and not loan.status.is_true("Lent"):
                worth = max(worth, taken.priority)
            self._recalled_for.setdefault(loan.metadata.name, (loan.spec.back.claim.uid, worth))

    def _only_lower_priorities_are_recalled(self) -> None:
        """Promise 3: a claim recalls only loans of strictly lower priority."""
        priorities = {c.metadata.uid: self._site.priority_of(c) for c in self._site.claims()}
        for name, (uid, worth) in self._recalled_for.items():
            if uid in priorities:
                assert worth < priorities[uid], f"3: {name} was recalled for a claim no higher"

    def _within_the_flap_budget(self) -> None:
        """Promise 3: unless a person releases it, a node changes hands no more often than its pool's budget allows."""
        budget, now = self._site.pool().spec.lending.flap_budget, self._site.now()
        window = now - timedelta(seconds=budget.window_seconds)
        since = {name: max(window, released_at(node, now) or window) for name, node in self._site.nodes().items()}
        started = (
            loan
            for loan in self._site.loans()
            if loan.status.is_true("Fenced") and created(loan) > since[loan.spec.node_name]
        )
        for node, trips in Counter(loan.spec.node_name for loan in started).items():
            assert trips <= budget.loans, f"3: {node} was lent {trips} times, its budget is {budget.loans}"

    def _one_claim_for_each_controller(self) -> None:
        """A controller has one automatic claim; a second only while one operator did not see what the other made."""
        live = Counter(c.metadata.labels[CLAIM_LABEL] for c in self._site.claims() if is_automatic(c) and not c.is_over)
        assert not [uid for uid, count in live.items() if count > 2], f"several claims for one controller: {live}"

    def _the_protected_keep_their_nodes(self) -> None:
        """Promise 3: no job starves, for what protects it holds against claims and against headroom."""
        terms = self._site.pool().spec.recall
        while self._site.recalls:
            recalled = self._site.recalls.pop()
            if recalled.command.back.reason not in ("Claimed", "HeadroomLow"):
                continue
            self._urgent_jobs_keep_their_nodes(recalled)
            for job in recalled.jobs:
                if "COMPLETING" in job.states or job.start_time is None:
                    continue
                ran, name = (recalled.time - job.start_time).total_seconds(), f"job {job.job_id}"
                assert ran >= terms.protection.minimum_run_seconds, f"3: {name} was taken after {ran} s"
                often = job.restarts >= terms.protection.after_restarts
                assert not often or ran >= terms.protection.protected_seconds, f"3: {name} was taken too often"
                assert job.requeueable or terms.non_requeueable_jobs == "Cancel", f"3: {name} was taken for good"

    def _urgent_jobs_keep_their_nodes(self, recalled: Recalled) -> None:
        """Promise 3: a loan is worth the most important job that was seen on it."""
        uid = recalled.command.back.claim.uid if recalled.command.back.claim else ""
        claim = next((claim for claim in self._site.claims() if claim.metadata.uid == uid), None)
        urgent = [job.job_id for job in recalled.jobs if "urgent" in job.partitions]
        if urgent and claim and not recalled.command.loan.is_wanted_back:
            worth = self._site.priority_of(claim)
            assert worth > URGENT, f"3: urgent jobs {urgent} lost their node to a claim of priority {worth}"

    def _no_job_lost(self) -> None:
        """Promise 4: a run ends well, or is requeued, or was cancelled by its owner's leave and is reported."""
        for job in self._site.slurm.jobs.values():
            if job.state in ("CANCELLED", "NODE_FAIL"):
                assert not job.requeueable, f"4: job {job.job_id} was lost"
                assert job.job_id in self._reported, f"4: job {job.job_id} was ended and is not reported"
        assert not self._site.killed_under, f"4: {self._site.killed_under}"

    def _foreign_drains_stay(self) -> None:
        """Promise 6: a drain of somebody else is still there, with its reason."""
        for name, reason in self._site.foreign_drains.items():
            record = self._site.slurm.nodes.get(name)
            assert record is not None, f"6: the record of {name}, which an admin drained, is gone"
            assert record.drained, f"6: the admin's drain of {name} is gone"
            assert record.reason == reason, f"6: the admin's reason on {name} became {record.reason}"

    def meddled(self, replicas: int) -> None:
        """Not an operator said how many replicas there shall be."""
        self._replicas = replicas

    def _services_stay_within_their_bounds(self) -> None:
        """No operator, however stale, tells a Deployment to have more or fewer replicas than the service may have."""
        services = self._site.services()
        for change in self._site.kube.changes_since(self._deployments):
            self._deployments = str(change.resource_version)
            name = change.object["metadata"]["name"]
            if change.kind != DEPLOYMENTS or change.type == "DELETED" or name != "chat":
                continue
            before, self._replicas = self._replicas, change.object["spec"]["replicas"]
            if self._replicas != before and name in services:
                spec = services[name].spec
                fine = spec.min_replicas <= self._replicas <= spec.max_replicas
                assert fine, f"{name} was told to have {self._replicas} replicas"

    def _what_others_made_stays(self) -> None:
        """Promise 6: a Deployment of the same name that somebody else made is not touched."""
        assert self._made_by_others() == self._theirs, "6: somebody else's Deployment was changed"

    def _made_by_others(self) -> list[Any]:
        found = self._site.run(self._site.kube.list(DEPLOYMENTS))
        return [one["spec"] for one in found if one["metadata"]["name"] == "theirs"]

    def _reservations_wait_for_their_time(self) -> None:
        """Nodes work on until a reservation needs them, and are let go at its end."""
        site, now = self._site, self._site.now()
        for claim in site.claims():
            start, uid = claim.spec.start_time, claim.metadata.uid
            if start is None:
                continue
            assert not (claim.status.started and claim.status.started < start), f"{claim.metadata.name} began early"
            if now < start - LONGEST_LEAD:
                held = [node.name for node in site.nodes().values() if claim_of_fence(node.fence or "") == uid]
                assert not held, f"{held} are held for {claim.metadata.name} too early"
                recalled_for = {recalled for recalled, _ in self._recalled_for.values()}
                assert uid not in recalled_for, f"a loan is recalled for {claim.metadata.name} too early"

    def _pods_of_others_go_by_their_leave(self) -> None:
        """Promise 7: by the Eviction API alone, for more important jobs, all nodes of a job or none, and never those
        that are not to be disrupted."""
        assert not self._site.wrongs, f"7: {self._site.wrongs[0]}"
