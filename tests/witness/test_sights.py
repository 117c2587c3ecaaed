"""What the witness makes of raw JSON, and that a side that does not answer is a gap and not a break."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from e2e.witness import Witness, sights, watch


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", []),
        ("gpu1", ["gpu1"]),
        ("a,b", ["a", "b"]),
        ("gpu[1-3]", ["gpu1", "gpu2", "gpu3"]),
        ("gpu[08-10,12],login", ["gpu08", "gpu09", "gpu10", "gpu12", "login"]),
        ("lab-worker,lab-worker[2-3]", ["lab-worker", "lab-worker2", "lab-worker3"]),
        ("r[1-2]x", ["r1x", "r2x"]),
    ],
)
def test_hostnames(expression: str, names: list[str]) -> None:
    assert sights.hostnames(expression) == names


def test_a_pod_counts_its_gpus_and_knows_which_fences_it_passes() -> None:
    raw: dict[str, Any] = {
        "metadata": {"namespace": "ml", "name": "web", "uid": "u"},
        "spec": {
            "nodeName": "n1",
            "containers": [{"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "1"}}}, {}],
            "tolerations": [
                {"key": "tidegate.dev/fence", "operator": "Equal", "value": "claim_c1", "effect": "NoSchedule"},
                {"key": "other", "operator": "Exists"},
            ],
        },
        "status": {"phase": "Running"},
    }
    pod = sights.kube_pod(raw)
    assert (pod.gpus, pod.is_foreign_gpu_pod) == (2, True)
    assert pod.tolerates("claim_c1")
    assert not pod.tolerates("n1-1")
    raw["spec"]["tolerations"] = [{"operator": "Exists"}]
    assert sights.kube_pod(raw).tolerates("n1-1")


def test_a_claim_is_over_when_served_but_not_when_it_is_held() -> None:
    def claim(reason: str) -> sights.Claim:
        satisfied = {"type": "Satisfied", "status": "True", "reason": reason}
        return sights.claim(
            {"metadata": {"namespace": "ml", "name": "c", "uid": "u"}, "status": {"conditions": [satisfied]}}
        )

    assert claim("Served").over
    assert not claim("Held").over


class Server:
    """Both sides at once: answers with `body` by path, or with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.slurm_errors: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                empty: dict[str, Any] = {"items": [], "jobs": [], "nodes": [], "errors": outer.slurm_errors}
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(json.dumps(empty).encode())

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def witness(server: Server, monkeypatch: pytest.MonkeyPatch) -> Witness:
    kubernetes = object.__new__(watch._Kubernetes)
    kubernetes._headers, kubernetes._door = {}, watch._Door(server.url)
    monkeypatch.setattr(watch, "_Kubernetes", lambda _: kubernetes)
    return Witness(Path("unused"), server.url, lambda: "token")


def test_failed_reads_are_gaps(server: Server, witness: Witness) -> None:
    assert witness.verdict().samples == 1
    server.status = 500
    assert (witness.verdict().samples, witness.verdict().gaps) == (1, 2)
    server.status, server.slurm_errors = 200, ["slurmctld is down"]
    assert witness.verdict().gaps == 3
    server.slurm_errors = []
    assert witness.verdict().ok


def test_the_connection_is_set_up_from_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not authorities:
        pytest.skip("this machine has no certificate authorities to make a kubeconfig with")
    pem = ssl.DER_cert_to_PEM_cert(authorities[0]).encode()
    path = tmp_path / "kubeconfig"
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": base64.b64encode(pem).decode()}
    path.write_text(yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": {"token": "t"}}]}))
    verdict = Witness(path, "http://127.0.0.1:1", lambda: "t").verdict()
    assert (verdict.samples, verdict.gaps, verdict.ok) == (0, 1, False)
