"""The rules: from a sequence of moments to the promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from e2e.witness.sights import CLAIM_FENCE, FENCE, LOAN_LABEL, Claim, KubeNode, KubePod, KubeSight, Moment, SlurmSight

_OWN_ENDS = frozenset({"COMPLETED", "TIMEOUT", "DEADLINE"})
_RUN_LOST = frozenset({"NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "PREEMPTED", "REVOKED", "OUT_OF_MEMORY"})
_HELD = frozenset({"JobHeldAdmin", "JobHeldUser", "JobHoldMaxRequeue", "launch_failed_requeued_held"})
_CONTROL_PLANE = "kubernetes.io/"


@dataclass(frozen=True)
class Break:
    """A promise that did not hold: which (its number in the design), when first, on what, in one sentence."""

    promise: int
    time: datetime
    subject: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What the witness says at the end. `gaps` are looks that failed, because one side did not answer."""

    breaks: tuple[Break, ...]
    samples: int
    gaps: int
    jobs: int
    """Jobs that recalls touched, all of them accounted for unless a break says otherwise."""
    last_gap: str = ""
    """Why the last look failed that did."""

    @property
    def ok(self) -> bool:
        """Whether no promise was broken; a witness that saw nothing cannot say so."""
        return not self.breaks and self.samples > 0

    def __str__(self) -> str:
        seen = f"{self.samples} looks, {self.gaps} gaps, {self.jobs} recalled jobs"
        if self.ok:
            return f"no promise was broken ({seen})"
        if not self.breaks:
            return f"the witness saw nothing ({seen}); {self.last_gap}"
        lines = [f"  promise {b.promise}, {b.time:%H:%M:%S.%f}, {b.subject}: {b.sentence}" for b in self.breaks]
        return "\n".join([f"{len(self.breaks)} breaks ({seen})", *lines])


class Judge:
    """Looks at moments in their order. Nothing it says is ever taken back."""

    def __init__(self) -> None:
        self.breaks: dict[tuple[int, str, str], Break] = {}
        self.samples = 0
        self._last: Moment | None = None
        self._expected: set[tuple[str, str]] = set()
        self._touched: set[int] = set()
        self._reported: dict[int, set[str]] = {}

    def expect(self, what: str, name: str) -> None:
        """The test itself changes this from now on, so it is no break.

        `what` is `cordon`, `taint`, `label`, `annotation`, `drain` or `comment` with a node as `name`, `job` with the
        id of a job that the test cancels or holds, or `slurm-node` for a Slurm node that is not Tidegate's.
        """
        self._expected.add((what, name))

    def look(self, moment: Moment) -> None:
        """Judge one moment against those before it."""
        self.samples += 1
        self._one_owner(moment)
        self._remember_jobs(moment)
        if self._last is not None:
            self._between(self._last.after, moment.before, moment)
            self._marks_in_slurm(self._last.slurm, moment)
        self._between(moment.before, moment.after, moment)
        self._last = moment

    def verdict(self, gaps: int, last_gap: str = "") -> Verdict:
        """The sum of it, with the account of all jobs as they were last seen."""
        breaks = dict(self.breaks)
        if self._last is not None:
            for job_id in sorted(self._touched):
                if sentence := self._account(job_id, self._last.slurm):
                    found = Break(4, self._last.time, f"job {job_id}", sentence)
                    breaks.setdefault((4, found.subject, sentence), found)
        ordered = sorted(breaks.values(), key=lambda one: (one.time, one.promise, one.subject))
        return Verdict(tuple(ordered), self.samples, gaps, len(self._touched), last_gap)

    def _between(self, old: KubeSight, new: KubeSight, moment: Moment) -> None:
        self._reserve_first(old, new, moment)
        self._marks_in_kubernetes(old, new, moment)

    def _break(self, promise: int, moment: Moment, subject: str, sentence: str) -> None:
        self.breaks.setdefault((promise, subject, sentence), Break(promise, moment.time, subject, sentence))

    def _is_expected(self, what: str, name: str) -> bool:
        return (what, name) in self._expected

    # --- promise 1 ----------------------------------------------------------------------------------------------------

    def _one_owner(self, moment: Moment) -> None:
        for node in moment.unchanged_nodes():
            name = moment.slurm_name(node.name)
            if self._is_expected("slurm-node", name):
                continue
            record, jobs = moment.slurm.nodes.get(name), moment.slurm.jobs_on(name)
            if node.is_open and record is not None and record.is_open:
                self._break(1, moment, f"node {node.name}", "open to Kubernetes GPU pods and to Slurm jobs")
            if node.is_open and jobs:
                self._break(1, moment, f"node {node.name}", "open to Kubernetes GPU pods while Slurm jobs are on it")
            if jobs and (pod := _running_in_both(moment, node)):
                self._break(1, moment, f"node {node.name}", f"pod {pod} runs beside job {jobs[0].job_id}")

    # --- promise 2 ----------------------------------------------------------------------------------------------------

    def _reserve_first(self, old: KubeSight, new: KubeSight, moment: Moment) -> None:
        for name, node in new.nodes.items():
            before = old.nodes.get(name)
            held_for = _claim_of(before)
            if before is None or held_for is None:
                continue
            if node.fence == before.fence:
                self._strangers(old, new, node, moment)
                continue
            claim = new.claims.get(held_for)
            # Claims were read after the nodes, and what is over stays over: a live one was alive at the change, too.
            if claim is not None and not claim.over and not (node.fence is None and _has_enough(claim, new)):
                sentence = f"{_whereabouts(node)} although claim {claim.key}, for which it was freed, still waits"
                self._break(2, moment, f"node {name}", sentence)

    def _strangers(self, old: KubeSight, new: KubeSight, node: KubeNode, moment: Moment) -> None:
        """Pods that came behind a claim's fence without leave."""
        known = {pod.uid for pod in old.pods if pod.node == node.name}
        for pod in new.pods:
            came = pod.node == node.name and pod.uid not in known
            if came and pod.is_foreign_gpu_pod and not pod.tolerates(node.fence or ""):
                sentence = f"pod {pod.key} was bound behind the fence of a claim that is not its own"
                self._break(2, moment, f"node {node.name}", sentence)

    # --- promise 4 ----------------------------------------------------------------------------------------------------

    def _remember_jobs(self, moment: Moment) -> None:
        for loan in moment.after.loans.values():
            for job_id, action in loan.jobs.items():
                self._reported.setdefault(job_id, set()).add(action)
            if not loan.wanted_back:
                continue
            record = moment.slurm.nodes.get(loan.slurm_node)
            if record is not None and record.extra == f"tidegate={loan.name}":
                self._touched |= {job.job_id for job in moment.slurm.jobs_on(loan.slurm_node)}

    def _account(self, job_id: int, slurm: SlurmSight) -> str | None:
        """What is wrong with the end of a job that a recall touched; None when it is as promised."""
        job = slurm.jobs.get(job_id)
        if self._is_expected("job", str(job_id)):
            return None
        if job is None:
            return "Slurm does not know it any more"
        if lost := job.states & _RUN_LOST:
            return f"ended as {'+'.join(sorted(lost))}"
        if "CANCELLED" in job.states:
            if job.requeueable:
                return "was cancelled although it may be requeued"
            if not self._reported.get(job_id, set()) & {"Cancelled", "EndedByDown"}:
                return "was cancelled, and no NodeLoan reports it"
        if "FAILED" in job.states and job.signal:
            return f"was ended by signal {job.signal}"
        if "PENDING" in job.states and job.reason in _HELD:
            return f"was requeued, but is held ({job.reason}) and will not start"
        known = job.states & (_OWN_ENDS | {"PENDING", "FAILED", "CANCELLED"}) or job.holds_nodes
        return None if known else f"is {'+'.join(sorted(job.states))}, which is no end that was promised"

    # --- promise 6 ----------------------------------------------------------------------------------------------------

    def _marks_in_kubernetes(self, old: KubeSight, new: KubeSight, moment: Moment) -> None:
        for name, before in old.nodes.items():
            node = new.nodes.get(name)
            if node is None:
                continue
            if before.cordoned and not node.cordoned:
                self._unless_expected("cordon", name, moment, "the cordon is gone")
            for taint in before.taints:
                if _is_others(taint.key, FENCE) and taint not in node.taints:
                    words = f"the taint {taint.key}:{taint.effect} is gone or changed"
                    self._unless_expected("taint", name, moment, words)
            marks = (("label", before.labels, node.labels), ("annotation", before.annotations, node.annotations))
            for what, had, has in marks:
                for key, value in had.items():
                    if _is_others(key, LOAN_LABEL) and has.get(key) != value:
                        self._unless_expected(what, name, moment, f"the {what} {key} is gone or changed")

    def _marks_in_slurm(self, old: SlurmSight, moment: Moment) -> None:
        for name, before in old.nodes.items():
            record, drain = moment.slurm.nodes.get(name), before.foreign_drain
            if drain is not None and (record is None or record.foreign_drain != drain):
                self._unless_expected("drain", name, moment, f"the drain `{drain}` is gone or changed")
            same = record is not None and record.extra == before.extra
            if same and record is not None and before.comment and record.comment != before.comment:
                self._unless_expected("comment", name, moment, f"the comment `{before.comment}` is gone or changed")

    def _unless_expected(self, what: str, name: str, moment: Moment, sentence: str) -> None:
        if not self._is_expected(what, name):
            self._break(6, moment, f"node {name}", sentence)


def _running_in_both(moment: Moment, node: KubeNode) -> str | None:
    """A pod of others with GPUs that ran here before and after Slurm was read."""
    before = {pod.uid for pod in moment.before.pods if _runs_on(pod, node)}
    return next((pod.key for pod in moment.after.pods if _runs_on(pod, node) and pod.uid in before), None)


def _runs_on(pod: KubePod, node: KubeNode) -> bool:
    return pod.node == node.name and pod.is_foreign_gpu_pod and pod.phase == "Running"


def _claim_of(node: KubeNode | None) -> str | None:
    fence = node.fence if node else None
    return fence.removeprefix(CLAIM_FENCE) if fence and fence.startswith(CLAIM_FENCE) else None


def _has_enough(claim: Claim, sight: KubeSight) -> bool:
    """Whether the claim, whose amount may have been lowered, still holds as much as it asks for."""
    held = [node for node in sight.nodes.values() if _claim_of(node) == claim.uid]
    return sum(node.gpus for node in held) >= claim.gpus if claim.gpus else len(held) >= claim.nodes


def _whereabouts(node: KubeNode) -> str:
    if node.fence is None:
        return "was let go"
    return "was given to another claim" if _claim_of(node) else f"was lent to {node.fence}"


def _is_others(key: str, ours: str) -> bool:
    """Whether a key belongs to people: not to Tidegate, and not to Kubernetes itself, which changes its own."""
    return key != ours and _CONTROL_PLANE not in key.partition("/")[0] + "/"
