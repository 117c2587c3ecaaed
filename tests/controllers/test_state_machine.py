"""Everything that can go wrong, in any order: two operators with stale eyes that are killed between any two calls.

The Lease is forced: both act at any time. The real decide and the real appliers run against the site in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.controllers.promises import THEIRS, Promises
from tests.controllers.site import USERS, Operator, Site
from tidegate.api.names import AUTOMATIC_LABEL, RELEASED_ANNOTATION, SERVICE_LABEL
from tidegate.api.resource import rfc3339
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    CAPACITY_CLAIMS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    NAMESPACES,
    NODE_LOANS,
    NODES,
    PODS,
)
from tidegate.sharing.evictions import SAFE_TO_EVICT
from tidegate.sharing.idleness import DO_NOT_DISRUPT
from tidegate.sharing.inference import wanted_replicas
from tidegate.sharing.needs import is_automatic

STEPS = 80


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of refused steps, each with its sentence, are no news here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


who = st.integers(0, 1)
MARKS: list[dict[str, str]] = [{}, {}, {}, {DO_NOT_DISRUPT: "true"}, {SAFE_TO_EVICT: "false"}]
CROWD = [("inference", {}), ("low", {}), ("urgent", {}), *(("inference", marks) for marks in MARKS if marks)]
node_names = st.sampled_from(["gpu-0", "gpu-1", "gpu-2"])
EVERY_OTHER_MINUTE = {"schedule": "*/2 * * * *", "durationSeconds": 60}
PLAIN: dict[str, Any] = {"headroom": {"low": 0, "high": 0}, "kubernetes": {"floor": 0, "cap": None}, "windows": []}
other_terms = st.sampled_from(
    [
        *[PLAIN] * 7,
        {"headroom": {"low": 1, "high": 2}},
        {"kubernetes": {"floor": 1, "cap": None}},
        {"kubernetes": {"floor": 0, "cap": 1}},
        {"windows": [{**EVERY_OTHER_MINUTE, "headroom": {"low": 1, "high": 1}}]},
        {"windows": [{**EVERY_OTHER_MINUTE, "cap": 0}, {**EVERY_OTHER_MINUTE, "policy": "Eager"}]},
    ]
)
"""Terms beside policy and cap; an admin may add some of them to others."""
amounts = st.sampled_from([{"nodes": 1}, {"nodes": 2}, {"nodes": 3}, {"gpus": 1}, {"gpus": 3}])
GANG = {"gang": True, "gatherSeconds": 20}
wishes = st.sampled_from(
    [{}, {}, {"ttlSeconds": 20}, {"durationSeconds": 15, "recallClass": "fast"}, GANG, GANG, {**GANG, "ttlSeconds": 60}]
)
"""What people say in claims beside the amount."""


START: dict[str, st.SearchStrategy[Any]] = {
    "release": st.sampled_from(["24.11", "26.05"]),
    "policy": st.sampled_from(["DemandDriven", "Eager"]),
    "other": st.sampled_from(["Cancel", "Protect"]),
    "priority": st.sampled_from([-100, 1000, 1500]),
    "budget": st.sampled_from([1, 2, 50]),
    "victims": st.sampled_from(["LeastLostWork", "NewestFirst", "LowestPriority", "Spread"]),
    "after_restarts": st.sampled_from([1, 2, 1000]),
    "minimum_run": st.sampled_from([0, 0, 10]),
    "terms": other_terms,
    "busy": st.lists(st.booleans(), max_size=3),
    "quotas": st.sampled_from([[], [], [{"nodes": 2}]]),
    "preemption": st.sampled_from(["Never", "LowerPriority"]),
    "crowd": st.lists(st.sampled_from(CROWD), min_size=3, max_size=3),
    "tries_modes": st.integers(0, 5).map(lambda number: number == 0),
}
"""What a site begins with."""


class TwoOperators(RuleBasedStateMachine):
    """Rules are what the world, people and faults do; the promises hold after each."""

    GIVEN: ClassVar[Mapping[str, Any]] = {}
    """What is not drawn of the beginning."""

    @initialize(drawn=st.fixed_dictionaries(START))
    def begin(self, drawn: dict[str, Any]) -> None:
        self.start(**{**drawn, **self.GIVEN})

    def start(
        self,
        release: str,
        policy: str,
        other: str,
        priority: int,
        budget: int,
        victims: str,
        after_restarts: int,
        minimum_run: int,
        terms: dict[str, Any],
        busy: list[bool],
        quotas: list[dict[str, int]],
        preemption: str,
        crowd: list[tuple[str, dict[str, str]]],
        tries_modes: bool,
    ) -> None:
        self.tries_modes = tries_modes
        self.site = Site(release=release)
        lending = {"policy": policy, "flapBudget": {"loans": budget}, **terms}
        lending |= {"preemption": preemption, "evictionSeconds": 40}
        protection = {"minimumRunSeconds": minimum_run, "afterRestarts": after_restarts, "protectedSeconds": 60}
        recall = {"nonRequeueableJobs": other, "victimPolicy": victims, "protection": protection}
        recall["fast"] = {"minimumPriority": 1500}
        self.patch_pool({"priority": priority, "lending": lending, "recall": recall, "claims": {"quotas": quotas}})
        self.operators = [Operator(self.site), Operator(self.site)]
        # A service of the same name has to live without a Deployment.
        self.site.make(DEPLOYMENTS, THEIRS, USERS)
        self.promises = Promises(self.site)
        self.counter = 0
        if preemption == "LowerPriority":
            for number, (class_, marks) in enumerate(crowd):
                self.site.gpu_pod(f"first-{number}", f"web-{int(class_ == 'urgent')}", 2, class_, annotations=marks)
            self.site.turn()
        # Half of the examples start with nodes in Slurm, where most of the interesting trouble is.
        if policy == "Eager":
            self.site.settle(self.operators[0], turns=12)
            for requeueable in busy:
                self.site.slurm.submit(gpus_per_node=2, duration_seconds=200, requeueable=requeueable)
            self.site.settle(self.operators[0], turns=2)

    def teardown(self) -> None:
        if hasattr(self, "site"):
            try:
                self.calm()
            finally:
                self.site.close()

    def unfinished_jobs(self) -> int:
        return sum(job.state in ("PENDING", "RUNNING") for job in self.site.slurm.jobs.values())

    def patch_pool(self, spec: dict[str, Any]) -> None:
        self.site.run(self.site.kube.patch(BATCH_POOLS, "batch", {"spec": spec}))

    # --- the operators

    @rule(who=who, events=st.integers(1, 30))
    def reads_some_of_the_watch(self, who: int, events: int) -> None:
        self.operators[who].read_watch(events)

    @rule(who=who)
    def reads_all_of_the_watch(self, who: int) -> None:
        self.operators[who].read_watch()

    @rule(who=who, events=st.integers(1, 10))
    def reads_events_twice(self, who: int, events: int) -> None:
        self.operators[who].read_again(events)

    @rule(who=who)
    def asks_slurm(self, who: int) -> None:
        self.operators[who].ask_slurm()

    @rule(who=who)
    def acts(self, who: int) -> None:
        self.operators[who].round()

    @rule(who=who, calls=st.integers(0, 12), after=st.booleans())
    def acts_and_is_killed(self, who: int, calls: int, after: bool) -> None:
        self.operators[who].fuse.set(calls, after, kills=True)
        self.operators[who].round()

    @rule(who=who, calls=st.integers(0, 12), after=st.booleans())
    def acts_and_one_call_gets_no_answer(self, who: int, calls: int, after: bool) -> None:
        self.operators[who].fuse.set(calls, after, kills=False)
        self.operators[who].round()

    @rule(who=who, turns=st.sampled_from([1, 3, 10]))
    def does_its_job(self, who: int, turns: int) -> None:
        self.site.settle(self.operators[who], turns=turns)

    @rule(who=who, turns=st.sampled_from([10, 30]))
    def does_its_job_for_long(self, who: int, turns: int) -> None:
        """Beside two dozen rules that disturb, one that lets whole trips come to their end."""
        self.site.settle(self.operators[who], turns=turns)

    # --- the world

    @rule()
    def kubernetes_turns(self) -> None:
        self.site.turn()

    @rule(seconds=st.sampled_from([0.5, 2, 6, 15, 40]))
    def time_passes(self, seconds: float) -> None:
        self.site.pass_time(seconds)

    @precondition(lambda self: self.unfinished_jobs() < 8)
    @rule(
        gpus=st.integers(1, 2),
        nodes=st.integers(1, 3),
        seconds=st.sampled_from([5, 30, 200]),
        limit=st.sampled_from([None, 40, 240]),
        requeueable=st.booleans(),
        on_signal=st.sampled_from(["ignores", "checkpoints", "exits"]),
        declares=st.booleans(),
        urgent=st.booleans(),
    )
    def a_job_is_submitted(
        self,
        gpus: int,
        nodes: int,
        seconds: int,
        limit: int | None,
        requeueable: bool,
        on_signal: str,
        declares: bool,
        urgent: bool,
    ) -> None:
        self.site.slurm.submit(
            partition="urgent" if urgent else "lent",
            priority=100 if urgent else 0,
            nodes=nodes,
            gpus_per_node=gpus,
            duration_seconds=seconds,
            time_limit_seconds=limit,
            requeueable=requeueable,
            on_signal=on_signal,  # type: ignore[arg-type]
            comment="tidegate:signal=USR1" if declares else "",
        )

    @precondition(lambda self: self.unfinished_jobs() < 8)
    @rule(who=who, nodes=st.integers(1, 2), seconds=st.sampled_from([5, 30]), turns=st.sampled_from([9, 12, 30]))
    def an_urgent_job_presses(self, who: int, nodes: int, seconds: int, turns: int) -> None:
        self.site.slurm.submit(partition="urgent", priority=100, nodes=nodes, duration_seconds=seconds)
        self.site.settle(self.operators[who], turns=turns)

    @rule(
        gpus=st.integers(1, 2),
        urgent=st.sampled_from([False, False, True]),
        revision=st.integers(1, 2),
        marks=st.sampled_from(MARKS),
    )
    def a_gpu_pod_is_made(self, gpus: int, urgent: bool, revision: int, marks: dict[str, str]) -> None:
        self.counter += 1
        class_ = "urgent" if urgent else "inference"
        self.site.gpu_pod(f"web-{self.counter}", f"web-{int(urgent)}", gpus, class_, revision, annotations=marks)

    @rule(gpus=st.integers(1, 2))
    def a_daemon_makes_a_gpu_pod(self, gpus: int) -> None:
        self.counter += 1
        self.site.gpu_pod(f"daemon-{self.counter}", "daemon", gpus, "low", kind="DaemonSet")

    @rule(urgent=st.booleans(), field=st.sampled_from(["minAvailable", "maxUnavailable"]), count=st.integers(0, 2))
    def a_disruption_budget_is_set(self, urgent: bool, field: str, count: int) -> None:
        self.site.budget(f"web-{int(urgent)}", **{field: count})

    @rule(said=st.sampled_from([None, "true", "false"]))
    def a_namespace_opts_in_or_out(self, said: str | None) -> None:
        labels = {AUTOMATIC_LABEL: said}
        self.site.run(self.site.kube.patch(NAMESPACES, USERS, {"metadata": {"labels": labels}}))

    @rule(node=node_names)
    def a_pod_is_bound_by_an_old_decision(self, node: str) -> None:
        self.counter += 1
        self.site.gpu_pod(f"late-{self.counter}", "late", 1)
        self.site.kube.schedule_stale(USERS, f"late-{self.counter}", node)

    @rule(data=st.data())
    def a_gpu_pod_ends(self, data: st.DataObject) -> None:
        pods = sorted(pod.name for pod in self.site.pods() if pod.namespace == USERS)
        if pods:
            self.site.run(self.site.kube.delete(PODS, data.draw(st.sampled_from(pods)), USERS, grace_seconds=0))

    @rule(
        who=who,
        wanted=amounts,
        wish=wishes,
        urgent=st.booleans(),
        holder=st.sampled_from([None, None, "web-0"]),
        turns=st.sampled_from([0, 3, 10]),
    )
    def somebody_claims(
        self, who: int, wanted: dict[str, int], wish: dict[str, Any], urgent: bool, holder: str | None, turns: int
    ) -> None:
        self.counter += 1
        spec = {"nodes": None, **wanted, **wish, "holderRef": self.site.holder(holder) if holder else None}
        self.site.claim(f"claim-{self.counter}", priority_class="urgent" if urgent else "inference", **spec)
        self.site.settle(self.operators[who], turns=turns)

    @rule(data=st.data(), wanted=amounts)
    def a_claim_asks_for_more_or_less(self, data: st.DataObject, wanted: dict[str, int]) -> None:
        claims = sorted(claim.metadata.name for claim in self.site.claims() if not is_automatic(claim))
        if claims:
            spec = {"nodes": None, "gpus": None, **wanted}
            name = data.draw(st.sampled_from(claims))
            self.site.run(self.site.kube.patch(CAPACITY_CLAIMS, name, {"spec": spec}, USERS))

    @rule(data=st.data())
    def a_pod_for_a_claim_is_made(self, data: st.DataObject) -> None:
        claims = sorted(claim.metadata.name for claim in self.site.claims())
        if claims:
            self.counter += 1
            self.site.gpu_pod(f"mine-{self.counter}", "mine", 1, claim=data.draw(st.sampled_from(claims)))

    @rule(name=st.sampled_from(["web-0", "web-1"]))
    def a_controller_is_deleted(self, name: str) -> None:
        self.site.delete_holder(name)

    @rule(
        wanted=amounts,
        start=st.sampled_from([-5, 3, 45, 90, 5000]),
        duration=st.sampled_from([20, 600]),
        gang=st.booleans(),
    )
    def somebody_reserves(self, wanted: dict[str, int], start: int, duration: int, gang: bool) -> None:
        self.counter += 1
        moment = self.site.now() + timedelta(seconds=start)
        spec: dict[str, Any] = {
            "nodes": None,
            **wanted,
            "gang": gang,
            "startTime": moment.isoformat(),
            "durationSeconds": duration,
        }
        self.site.claim(f"claim-{self.counter}", **spec)

    @rule(data=st.data())
    def a_claim_is_cancelled(self, data: st.DataObject) -> None:
        claims = sorted(claim.metadata.name for claim in self.site.claims())
        if claims:
            self.site.run(self.site.kube.delete(CAPACITY_CLAIMS, data.draw(st.sampled_from(claims)), USERS))

    @rule(
        name=st.sampled_from(["chat", "theirs"]),
        replicas=st.integers(0, 9),
        warm=st.integers(0, 2),
        there=st.booleans(),
    )
    def somebody_serves_a_model(self, name: str, replicas: int, warm: int, there: bool) -> None:
        """Make a service, scale it, keep room for it, or delete it."""
        spec = {"replicas": replicas, "warmReplicas": warm, "poolName": "batch", "priorityClassName": "inference"}
        if name not in self.site.services():
            self.site.service(name, **spec)
        elif there:
            self.site.run(self.site.kube.patch(INFERENCE_SERVICES, name, {"spec": spec}, USERS))
        else:
            self.site.run(self.site.kube.delete(INFERENCE_SERVICES, name, USERS))

    @rule(change=st.sampled_from([{"spec": {"replicas": 9}}, {"metadata": {"labels": None}}, None]))
    def somebody_meddles_with_what_was_made(self, change: dict[str, Any] | None) -> None:
        kube = self.site.kube
        if not any(one["metadata"]["name"] == "chat" for one in self.site.run(kube.list(DEPLOYMENTS, USERS))):
            return
        if change is None:
            self.site.run(kube.delete(DEPLOYMENTS, "chat", USERS))
        else:
            made = self.site.run(kube.patch(DEPLOYMENTS, "chat", change, USERS))
            self.promises.meddled(made["spec"]["replicas"])

    @rule(data=st.data())
    def a_loan_is_deleted(self, data: st.DataObject) -> None:
        loans = sorted(loan.metadata.name for loan in self.site.loans() if not loan.is_over)
        if loans:
            self.site.run(self.site.kube.delete(NODE_LOANS, data.draw(st.sampled_from(loans))))

    @rule(node=node_names, cordoned=st.booleans())
    def an_admin_cordons(self, node: str, cordoned: bool) -> None:
        self.site.run(self.site.kube.patch(NODES, node, {"spec": {"unschedulable": cordoned or None}}))

    @rule(node=node_names)
    def a_person_releases_a_node(self, node: str) -> None:
        annotation = {RELEASED_ANNOTATION: rfc3339(self.site.now())}
        self.site.run(self.site.kube.patch(NODES, node, {"metadata": {"annotations": annotation}}))

    @rule(node=node_names, protected=st.booleans())
    def an_admin_protects(self, node: str, protected: bool) -> None:
        annotations = {DO_NOT_DISRUPT: "true" if protected else None}
        self.site.run(self.site.kube.patch(NODES, node, {"metadata": {"annotations": annotations}}))

    @rule(stop=st.sampled_from(["None", "Hold", "HoldAndDrain"]), cap=st.sampled_from([None, 0, 1, 3]))
    def an_admin_stops_or_caps(self, stop: str, cap: int | None) -> None:
        self.patch_pool({"stopPolicy": stop, "lending": {"cap": cap}})

    @rule(terms=other_terms)
    def an_admin_changes_the_terms(self, terms: dict[str, Any]) -> None:
        self.patch_pool({"lending": terms})

    @rule(data=st.data())
    def an_admin_drains_in_slurm(self, data: st.DataObject) -> None:
        ours = sorted(name for name, node in self.site.slurm.nodes.items() if not node.drained)
        if ours:
            self.site.drain_by_admin(data.draw(st.sampled_from(ours)), "bad fan")

    @precondition(lambda self: self.site.resumable())
    @rule()
    def the_admin_resumes(self) -> None:
        self.site.resume_by_admin(self.site.resumable()[0])

    # --- faults

    @rule(node=node_names, dead=st.booleans())
    def a_kubelet_dies_or_lives(self, node: str, dead: bool) -> None:
        (self.site.kube.node_dies if dead else self.site.kube.node_lives)(node)

    @rule(broken=st.sampled_from(["", "unreachable", "errors", "loses_answers"]))
    def slurm_breaks_or_heals(self, broken: str) -> None:
        self.site.slurm.unreachable = broken == "unreachable"
        self.site.slurm.errors = "slurmctld is in a bad mood" if broken == "errors" else ""
        self.site.slurm.loses_answers = broken == "loses_answers"

    # A pool that only recommends has few adventures, so most examples have none.
    @precondition(lambda self: self.tries_modes)
    @rule(mode=st.sampled_from(["Enforce", "Recommend"]))
    def an_admin_changes_the_mode(self, mode: str) -> None:
        self.patch_pool({"mode": mode})

    @invariant()
    def promises_hold(self) -> None:
        if hasattr(self, "site"):
            self.promises.check(min(int(operator.position) for operator in self.operators))

    # --- promise 5: once the faults stop, everything comes to its end in bounded time

    def calm(self) -> None:
        """Let faults and people rest: each loan and claim ends up somewhere for good, and every job ends."""
        site = self.site
        self.slurm_breaks_or_heals("")
        for name in site.nodes():
            site.kube.node_lives(name)
            site.run(site.kube.patch(NODES, name, {"spec": {"unschedulable": None}}))
            site.run(site.kube.patch(NODES, name, {"metadata": {"annotations": {DO_NOT_DISRUPT: None}}}))
        site.replaces_pods = False
        for name in list(site.foreign_drains):
            site.resume_by_admin(name)
        self.services_come_to_rest()
        for name in site.services():
            site.run(site.kube.delete(INFERENCE_SERVICES, name, USERS))
        while site.kube.collect_garbage():
            pass
        for pod in site.pods():
            if pod.namespace == USERS:
                site.run(site.kube.delete(PODS, pod.name, USERS, grace_seconds=0))
        for claim in site.claims():
            site.run(site.kube.delete(CAPACITY_CLAIMS, claim.metadata.name, USERS))
        terms = {"cap": None, "policy": "DemandDriven", "flapBudget": {"loans": 100}, **PLAIN}
        self.patch_pool({"mode": "Enforce", "stopPolicy": "None", "lending": terms})
        for _ in range(160):
            for name in site.resumable():
                site.resume_by_admin(name)
            for operator in self.operators:
                site.settle(operator, turns=2, seconds=4.0)
            self.promises.check()
            if self.is_quiet():
                return
        raise AssertionError(f"5: not at rest: {self.unrest()}")

    def services_come_to_rest(self) -> None:
        """Whatever was meddled with, what was made is as the service says again."""
        site = self.site
        for operator in self.operators:
            site.settle(operator, turns=3)
        made = {one["metadata"]["name"]: one for one in site.run(site.kube.list(DEPLOYMENTS, USERS))}
        for name, service in site.services().items():
            if name != "theirs":
                assert made[name]["spec"]["replicas"] == wanted_replicas(service), f"5: {name} is not scaled"
                assert made[name]["metadata"]["labels"][SERVICE_LABEL] == name, f"5: {name} lost its label"

    def unrest(self) -> str:
        site = self.site
        loans = [(x.metadata.name, x.status.state, x.status.message) for x in site.loans() if not x.is_over]
        nodes = [(n.name, n.fence, n.loan_label) for n in site.nodes().values() if n.fence or n.loan_label]
        jobs = [(j.job_id, j.state) for j in site.slurm.jobs.values() if j.state in ("PENDING", "RUNNING")]
        pods = [(pod.name, pod.phase, pod.node) for pod in site.pods() if pod.loan]
        return f"loans {loans}, nodes {nodes}, jobs {jobs}, slurmd pods {pods}, records {list(site.slurm.nodes)}"

    def is_quiet(self) -> bool:
        site = self.site
        return (
            all(loan.is_over for loan in site.loans())
            and all(node.fence is None and node.loan_label is None for node in site.nodes().values())
            and not any(pod.loan for pod in site.pods())
            and not site.slurm.nodes
            and not site.slurm.reservations
            and not self.unfinished_jobs()
        )


TwoOperators.TestCase.settings = settings(stateful_step_count=STEPS, suppress_health_check=list(HealthCheck))
TestTwoOperators = TwoOperators.TestCase
