"""What scenarios are played on: the lab with a SlurmCluster and a BatchPool, and what people do there."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from e2e.kube import Json, Kube, Refused
from e2e.lab import Lab
from e2e.operator import NAMESPACE, wait_for

HERE = Path(__file__).resolve().parent
CLUSTER = "lab"
POOL = "idle-gpus"
SECRET = "slurm-lab"
WORK = "ml"
"""The namespace of people's pods and claims."""
GPU = "nvidia.com/gpu"
LENDABLE = "e2e.tidegate.dev/lendable"
PRIORITY_CLASS = "inference"
PRIORITY = 1000
REST = "/slurm/v0.0.42"
PDBS = "poddisruptionbudgets"
LEND_SECONDS = 30
RETURN_SECONDS = 40

SHORT_LENDING: Json = {"idleSeconds": 1, "idleReturnSeconds": 3, "joinSeconds": 60, "flapBudget": {"loans": 100}}
SHORT_RECALL: Json = {
    "quick": {"drainSeconds": 0, "checkpointSeconds": 5, "requeueSeconds": 10},
    "fast": {"drainSeconds": 0, "checkpointSeconds": 0, "requeueSeconds": 10},
}

CHECKPOINTING_JOB = """#!/bin/bash
# Counts to {end}, twice a second. On USR1 it saves the count and waits to be requeued; the next run goes on there.
state=/shared/{name}.state
log=/shared/{name}.log
count=$(cat "$state" 2>/dev/null || echo 0)
echo "run ${{SLURM_RESTART_COUNT:-0}} starts at $count" >> "$log"
save() {{ echo "$count" > "$state.new" && mv "$state.new" "$state"; echo "saved $count" >> "$log"; sleep 300 & wait; }}
trap save USR1
while [ "$count" -lt {end} ]; do sleep 0.5 & wait $!; count=$((count + 1)); done
echo "done at $count" >> "$log"
"""


class Stage:
    """The scene of one test. `lending` and `recall` of `set_up` are merged over short times."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.kube = Kube(lab.kubeconfig)
        self.jobs: list[int] = []

    # --- setting up and clearing away ---------------------------------------------------------------------------------

    def clear(self) -> None:
        """Everything home: no workload, claim, pool, loan, job or Slurm node is left. An operator must run meanwhile.

        Raises `TimeoutError` when the operator does not bring the nodes home; they are, all the same, afterwards.
        """
        kube = self.kube
        # The garbage collector gets to the ReplicaSets in its own time.
        made = ("inferenceservices", "deployments", "replicasets", "statefulsets", "jobs", "capacityclaims", PDBS)
        for plural in made:
            for item in kube.list(plural, WORK):
                kube.delete(plural, item["metadata"]["name"], WORK, propagationPolicy="Background")
        if kube.get("namespaces", WORK):
            self.label_namespace(None)
        for pod in kube.list("pods", WORK):
            kube.delete("pods", pod["metadata"]["name"], WORK, gracePeriodSeconds=0)
        if self._live_jobs():
            self.lab.slurm("scancel", "--user=alice", check=False)
        for node in self.lab.workers:
            self._clear_node(node)
        for pool in kube.list("batchpools"):
            kube.delete("batchpools", pool["metadata"]["name"])
        try:
            wait_for("the end of all pools and loans", self._nothing_lent, 60)
        except TimeoutError:
            self._force_home()
            raise
        for loan in kube.list("nodeloans"):
            kube.delete("nodeloans", loan["metadata"]["name"])
        for cluster in kube.list("slurmclusters"):
            kube.delete("slurmclusters", cluster["metadata"]["name"])
        wait_for("the end of all jobs", lambda: not self._live_jobs(), 60)
        for name in self.slurm_nodes():
            self.lab.slurm("scontrol", "delete", f"nodename={name}", check=False)
        wait_for("a Slurm without nodes", lambda: not self.slurm_nodes(), 30)
        wait_for("workers without pods", lambda: not kube.list("pods", WORK), 30)
        for path in self.lab.shared_dir.iterdir():
            if path.is_file():
                path.unlink()
        self.jobs.clear()

    def _nothing_lent(self) -> bool:
        open_loans = [loan for loan in self.kube.list("nodeloans") if not condition(loan, "Returned")]
        fenced = [node for node in self.lab.workers if self.fence(node)]
        return not self.kube.list("batchpools") and not open_loans and not fenced

    def _force_home(self) -> None:
        """What an administrator would do by hand when the operator is broken, so that one failure stays one."""
        for plural in ("batchpools", "nodeloans"):
            for item in self.kube.list(plural):
                name = item["metadata"]["name"]
                self.kube.patch(plural, name, {"metadata": {"finalizers": None}})
                self.kube.delete(plural, name)
        for pod in self.kube.list("pods", NAMESPACE, labelSelector="tidegate.dev/loan"):
            self.kube.delete("pods", pod["metadata"]["name"], NAMESPACE, gracePeriodSeconds=0)
        for node in self.lab.workers:
            taints = [t for t in self.node(node)["spec"].get("taints", []) if t["key"] != "tidegate.dev/fence"]
            labels = {"tidegate.dev/loan": None}
            self.kube.patch("nodes", node, {"metadata": {"labels": labels}, "spec": {"taints": taints}})
        for name in self.slurm_nodes():
            self.lab.slurm("scontrol", "update", f"nodename={name}", "state=down", "reason=tidegate:e2e", check=False)

    def _clear_node(self, node: str) -> None:
        raw = self.node(node)
        taints = [t for t in raw["spec"].get("taints", []) if not t["key"].startswith("e2e.")]
        metadata: Json = {"labels": {LENDABLE: "true"}}
        self.kube.patch("nodes", node, {"metadata": metadata, "spec": {"unschedulable": None, "taints": taints}})

    def _live_jobs(self) -> list[Json]:
        over = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE", "OUT_OF_MEMORY"}
        jobs = self.lab.rest("GET", f"{REST}/jobs/")["jobs"]
        return [job for job in jobs if "COMPLETING" in job["job_state"] or not over & set(job["job_state"])]

    @property
    def credentials(self) -> dict[str, bytes]:
        """What the Secret of the lab's Slurm holds."""
        return {"jwt_hs256.key": self.lab.jwt_key, "slurm.key": self.lab.slurm_key}

    def set_up(
        self,
        lending: Json | None = None,
        recall: Json | None = None,
        *,
        secret: Mapping[str, bytes] | Literal["good"] | None = "good",  # noqa: S107 - no secret
        cluster: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """Namespaces, PriorityClass, Secret (None for none), SlurmCluster and BatchPool.

        `cluster` has other fields of the SlurmCluster's spec; those of the pool's come by keyword.
        """
        for namespace in (NAMESPACE, WORK):
            self.ensure("namespaces", {"metadata": {"name": namespace}})
        self.ensure("priorityclasses", {"metadata": {"name": PRIORITY_CLASS}, "value": PRIORITY})
        self.kube.delete("secrets", SECRET, NAMESPACE)
        if secret is not None:
            self.put_secret(self.credentials if secret == "good" else secret)
        self.put_cluster(**(cluster or {}))
        self.put_pool(POOL, lending, recall, **spec)

    def put_secret(self, data: Mapping[str, bytes], name: str = SECRET) -> None:
        """The credentials."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self.kube.create("secrets", {"metadata": {"name": name}, "data": encoded}, NAMESPACE)

    def put_cluster(self, name: str = CLUSTER, **spec: Any) -> None:
        """A SlurmCluster for the lab's Slurm."""
        given = {
            "endpoint": self.lab.rest_url,
            "credentialsSecretName": SECRET,
            "controllerAddress": self.lab.slurmctld_address,
            "pollSeconds": 1,
            **spec,
        }
        self.kube.create("slurmclusters", _tidegate("SlurmCluster", name, given))

    def put_pool(
        self,
        name: str,
        lending: Json | None = None,
        recall: Json | None = None,
        template: Json | None = None,
        **spec: Any,
    ) -> None:
        """A BatchPool over all workers, with short times."""
        slurmd = {"image": self.lab.slurmd_image, "imagePullPolicy": "Never", "template": template or slurmd_template()}
        given: Json = {
            "nodeSelector": {LENDABLE: "true"},
            "slurmClusterName": CLUSTER,
            "partition": self.lab.partition,
            "features": [self.lab.partition],
            "slurmd": slurmd,
            "lending": {**SHORT_LENDING, **(lending or {})},
            "recall": {**SHORT_RECALL, **(recall or {})},
            **spec,
        }
        self.kube.create("batchpools", _tidegate("BatchPool", name, given))

    def patch_pool(self, spec: Json) -> None:
        """Change the pool's spec by a merge patch."""
        self.kube.patch("batchpools", POOL, {"spec": spec})

    def ensure(self, plural: str, body: Json) -> None:
        """Make an object that has no namespace, unless it is there."""
        try:
            self.kube.create(plural, body)
        except Refused as error:
            if error.status != 409:
                raise

    # --- what people do -----------------------------------------------------------------------------------------------

    def submit(self, script: str, *options: str, gpus: int = 2, user: str = "alice") -> int:
        """`sbatch` a script; its job id."""
        arguments = [
            "sbatch",
            "--parsable",
            "--mem=100",
            f"--gpus-per-node={gpus}",
            "--output=/shared/%x-%j.out",
            *options,
        ]
        job_id = int(self.lab.slurm(*arguments, user=user, input=script).strip().partition(";")[0])
        self.jobs.append(job_id)
        return job_id

    def sleep_job(self, seconds: int, *options: str) -> int:
        """A job that only waits and holds a whole node."""
        return self.submit(f"#!/bin/bash\nexec sleep {seconds}\n", *options)

    def checkpointing_job(self, name: str, end: int, *options: str) -> int:
        """A job that counts to `end` twice a second, saves on USR1 and continues when it runs again."""
        script = CHECKPOINTING_JOB.format(name=name, end=end)
        return self.submit(script, f"--job-name={name}", "--comment=tidegate:signal=USR1", *options)

    def deployment(
        self,
        name: str,
        replicas: int,
        gpus: int = 2,
        priority_class: str = PRIORITY_CLASS,
        labels: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        """A service whose replicas take whole nodes, or are `apart` on nodes; `labels` come onto its pods."""
        template = self._template(name, gpus, priority_class, labels)
        if apart:
            alone = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}}
            required = {"requiredDuringSchedulingIgnoredDuringExecution": [alone]}
            template["spec"]["affinity"] = {"podAntiAffinity": required}
        selector = {"matchLabels": {"app": name}}
        body: Json = {"replicas": replicas, "selector": selector, "template": template}
        self.kube.create("deployments", {"metadata": {"name": name}, "spec": body}, WORK)

    def stateful_set(self, name: str, replicas: int, gpus: int = 2) -> None:
        """The same with a StatefulSet."""
        template = self._template(name, gpus)
        selector = {"matchLabels": {"app": name}}
        body: Json = {"replicas": replicas, "serviceName": name, "selector": selector, "template": template}
        self.kube.create("statefulsets", {"metadata": {"name": name}, "spec": body}, WORK)

    def batch_job(self, name: str, gpus: int = 2) -> None:
        """A Job of Kubernetes with one pod."""
        template = self._template(name, gpus)
        template["spec"]["restartPolicy"] = "Never"
        self.kube.create("jobs", {"metadata": {"name": name}, "spec": {"template": template}}, WORK)

    def _template(
        self,
        name: str,
        gpus: int = 2,
        priority_class: str = PRIORITY_CLASS,
        labels: Mapping[str, str] | None = None,
    ) -> Json:
        container = {
            "name": "server",
            "image": self.lab.slurmd_image,
            "imagePullPolicy": "Never",
            "command": ["sleep", "infinity"],
            "resources": {"limits": {GPU: str(gpus)}},
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "priorityClassName": priority_class}
        return {"metadata": {"labels": {**(labels or {}), "app": name}}, "spec": spec}

    def label_namespace(self, automatic_claims: str | None) -> None:
        """Opt people's namespace in (`true`) or out (`false`) of automatic claims, or neither."""
        labels = {"tidegate.dev/automatic-claims": automatic_claims}
        self.kube.patch("namespaces", WORK, {"metadata": {"labels": labels}})

    def budget(self, app: str, **spec: Any) -> None:
        """A PodDisruptionBudget over a deployment's pods."""
        selector = {"matchLabels": {"app": app}}
        self.kube.create(PDBS, {"metadata": {"name": app}, "spec": {"selector": selector, **spec}}, WORK)

    def scale(self, name: str, replicas: int) -> None:
        """Change the number of a deployment's replicas."""
        self.kube.patch("deployments", name, {"spec": {"replicas": replicas}}, WORK)

    def claim(self, name: str, nodes: int | None = 1, **spec: Any) -> None:
        """An explicit claim, for nodes or, without them, for what `spec` says."""
        given = {"poolName": POOL, "priorityClassName": PRIORITY_CLASS, **({"nodes": nodes} if nodes else {}), **spec}
        self.kube.create("capacityclaims", _tidegate("CapacityClaim", name, given), WORK)

    def service(self, name: str, **spec: Any) -> None:
        """An InferenceService of a model server that Python brings; each replica takes a whole node."""
        image, script = self.lab.operator_image, (HERE / "model_server.py").read_text()
        server = {"image": image, "imagePullPolicy": "Never", "command": ["python3", "-c", script]}
        given = {"server": server, "gpusPerReplica": 2, "priorityClassName": PRIORITY_CLASS, **spec}
        self.kube.create("inferenceservices", _tidegate("InferenceService", name, given), WORK)

    def scale_service(self, name: str, replicas: int) -> None:
        """What autoscalers do, by the scale subresource."""
        self.kube.patch("inferenceservices", name, {"spec": {"replicas": replicas}}, WORK, subresource="scale")

    def reference(self, plural: str, name: str) -> Json:
        """What a claim for the pods of that controller names."""
        found = self.kube.get(plural, name, WORK)
        assert found is not None
        return {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "name": name,
            "uid": found["metadata"]["uid"],
        }

    # --- what is so ---------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Json:
        """A Node as it is."""
        found = self.kube.get("nodes", name)
        assert found is not None, f"node {name} does not exist"
        return found

    def fence(self, node: str) -> str | None:
        """The value of the node's fence."""
        taints = self.node(node)["spec"].get("taints", [])
        return next((t.get("value", "") for t in taints if t["key"] == "tidegate.dev/fence"), None)

    def loans(self, open_only: bool = True) -> list[Json]:
        """Loans, by default those that are not over."""
        return [one for one in self.kube.list("nodeloans") if not (open_only and condition(one, "Returned"))]

    def lent(self) -> list[Json]:
        """Loans whose node is Slurm's."""
        return [one for one in self.loans() if condition(one, "Lent") and one["spec"]["wanted"] == "Lent"]

    def returning(self) -> list[Json]:
        """Loans on their way back."""
        return [one for one in self.loans() if one["spec"]["wanted"] == "Returned"]

    def slurm_nodes(self) -> dict[str, Json]:
        """Slurm's node records by name, without those that the lab's slurm.conf names for all times."""
        nodes = self.lab.rest("GET", f"{REST}/nodes/")["nodes"]
        return {node["name"]: node for node in nodes if "DYNAMIC_NORM" in node["state"]}

    def job(self, job_id: int) -> Json:
        """A job as Slurm knows it."""
        found: Json = self.lab.rest("GET", f"{REST}/job/{job_id}")["jobs"][0]
        return found

    def state(self, job_id: int) -> str:
        """The state of a job, such as `RUNNING`."""
        return "+".join(self.job(job_id)["job_state"])

    def running_pods(self, app: str) -> list[Json]:
        """Pods of a deployment that run."""
        pods = self.kube.list("pods", WORK, labelSelector=f"app={app}")
        return [p for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]

    def claims(self) -> list[Json]:
        """All claims of people's namespace."""
        return self.kube.list("capacityclaims", WORK)

    def ready(self, plural: str, name: str, type_: str = "Ready") -> tuple[str, str, str]:
        """A condition as (status, reason, message)."""
        found = self.kube.get(plural, name, WORK if plural in ("capacityclaims", "inferenceservices") else "")
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return next(
            ((c["status"], c["reason"], c.get("message", "")) for c in conditions if c["type"] == type_), ("", "", "")
        )

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_lent(self, count: int = 1, seconds: float = LEND_SECONDS) -> list[Json]:
        """Until that many nodes are Slurm's."""
        return wait_for(f"{count} lent nodes", lambda: self._exactly(self.lent(), count), seconds)

    def _exactly(self, found: list[Json], count: int) -> list[Json]:
        return found if len(found) == count else []

    def wait_home(self, seconds: float = RETURN_SECONDS) -> None:
        """Until no loan is open and no worker has a fence."""
        wait_for("all nodes at home", lambda: not self.loans() and not any(map(self.fence, self.lab.workers)), seconds)

    def wait_job(self, job_id: int, *states: str, seconds: float = 30) -> Json:
        """Until the job is in one of the states."""

        def look() -> Json | None:
            job = self.job(job_id)
            return job if set(job["job_state"]) & set(states) else None

        found = wait_for(f"job {job_id} {' or '.join(states)}", look, seconds)
        assert found is not None
        return found

    def wait_jobs_running(self, count: int, seconds: float = 60) -> None:
        """Until that many jobs run."""
        look = ("squeue", "--all", "--noheader", "--states=RUNNING", "--format=%A")
        wait_for(f"{count} running jobs", lambda: len(self.lab.slurm(*look).split()) == count, seconds)

    def wait_running(self, app: str, count: int, seconds: float = 30) -> list[Json]:
        """Until that many replicas run."""
        return wait_for(f"{count} pods of {app}", lambda: self._exactly(self.running_pods(app), count), seconds)

    def wait_condition(
        self, plural: str, name: str, status: str, reason: str, type_: str = "Ready", seconds: float = 20
    ) -> str:
        """Until a condition says so; its message."""

        def look() -> tuple[str, ...]:
            found = self.ready(plural, name, type_)
            return found if found[:2] == (status, reason) else ()

        try:
            return wait_for(f"{type_}={status} ({reason}) of {name}", look, seconds)[2]
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {self.ready(plural, name, type_)}") from None

    def log_of(self, name: str) -> str:
        """What a checkpointing job noted."""
        path: Path = self.lab.shared_dir / f"{name}.log"
        return path.read_text() if path.exists() else ""


def slurmd_template() -> Json:
    """Jobs of the lab share a directory with the controller, as on any site with a parallel file system."""
    mount = {"name": "shared", "mountPath": "/shared"}
    container = {"name": "slurmd", "volumeMounts": [mount]}
    volume = {"name": "shared", "hostPath": {"path": "/shared"}}
    return {"spec": {"containers": [container], "volumes": [volume]}}


def condition(thing: Json, type_: str) -> bool:
    """Whether a condition of an object is True."""
    found = thing.get("status", {}).get("conditions", [])
    return any(c["type"] == type_ and c["status"] == "True" for c in found)


def reason(thing: Json, type_: str) -> str:
    """The reason of an object's condition, empty when there is none."""
    found = thing.get("status", {}).get("conditions", [])
    return next((c["reason"] for c in found if c["type"] == type_), "")


def restarts_in(log: str) -> list[int]:
    """At which count each run of a checkpointing job started."""
    return [int(number) for number in re.findall(r"run \d+ starts at (\d+)", log)]


def _tidegate(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
