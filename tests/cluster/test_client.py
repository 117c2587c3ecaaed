"""How the client treats an API server that throttles, refuses, lies or is silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from tidegate.cluster import client
from tidegate.cluster.client import KubeClient
from tidegate.cluster.errors import Forbidden, Invalid, KubeError, NotFound, Protected, Unreachable
from tidegate.cluster.kinds import CAPACITY_CLAIMS, LEASES, NODE_LOANS, NODES, PODS

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An HTTP server that answers as the test says and remembers what it was asked."""

    def __init__(self, tmp_path: Path) -> None:
        self.kubeconfig = tmp_path / "kubeconfig"
        self.requests: list[web.Request] = []
        self.bodies: list[str] = []
        self.answers: list[web.Response | Answer] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.http = TestServer(app)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.text())
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer(request)

    def write_kubeconfig(self, token: str) -> None:
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": str(self.http.make_url("/")).rstrip("/")}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    await server.http.start_server()
    server.write_kubeconfig("first")
    yield server
    await server.http.close()


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(server.kubeconfig, "tidegate/1.0 (test)")
    yield kube
    await kube.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waited, instead of waiting."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waited


def refusal(status: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return web.json_response(body, status=status)


async def test_a_list_is_read_in_chunks_and_always_from_the_newest_state(server: Server, kube: KubeClient) -> None:
    server.answers = [
        web.json_response({"metadata": {"continue": "a+b=="}, "items": [{"metadata": {"name": "p1"}}]}),
        web.json_response({"metadata": {}, "items": [{"metadata": {"name": "p2"}}]}),
    ]
    pods = await kube.list(PODS, label_selector="a=b,c", field_selector="spec.nodeName=n")
    assert [(pod["kind"], pod["metadata"]["name"]) for pod in pods] == [("Pod", "p1"), ("Pod", "p2")]
    first, second = server.requests
    assert first.path == "/api/v1/pods"
    assert dict(first.query) == {"limit": "500", "labelSelector": "a=b,c", "fieldSelector": "spec.nodeName=n"}
    assert dict(second.query) == {**first.query, "continue": "a+b=="}
    assert first.headers["User-Agent"] == "tidegate/1.0 (test)"
    assert first.headers["Authorization"] == "Bearer first"


async def test_requests_go_where_the_api_server_expects_them(server: Server, kube: KubeClient) -> None:
    server.answers = [web.json_response({}) for _ in range(4)]
    await kube.get(LEASES, "tidegate", "system")
    await kube.create(NODE_LOANS, {"metadata": {"name": "l"}})
    await kube.patch(CAPACITY_CLAIMS, "c", {"status": {}}, "jobs", "status")
    await kube.delete(PODS, "p", "jobs", uid="u1", grace_seconds=0)
    assert [(request.method, request.path) for request in server.requests] == [
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/system/leases/tidegate"),
        ("POST", "/apis/tidegate.dev/v1alpha1/nodeloans"),
        ("PATCH", "/apis/tidegate.dev/v1alpha1/namespaces/jobs/capacityclaims/c/status"),
        ("DELETE", "/api/v1/namespaces/jobs/pods/p"),
    ]
    assert server.requests[2].headers["Content-Type"] == "application/merge-patch+json"
    assert yaml.safe_load(server.bodies[3]) == {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u1"},
        "gracePeriodSeconds": 0,
    }


async def test_a_throttled_request_is_repeated_when_the_server_says(
    server: Server, kube: KubeClient, pauses: list[float]
) -> None:
    throttled = [web.json_response({}, status=429, headers={"Retry-After": seconds}) for seconds in ("3", "1000")]
    server.answers = [*throttled, web.json_response({"metadata": {"name": "n"}})]
    await kube.patch(NODES, "n", {"metadata": {}})
    assert len(server.requests) == 3
    assert pauses == [3.0, 5.0]


async def test_a_server_that_keeps_throttling_is_left_alone(
    server: Server, kube: KubeClient, pauses: list[float]
) -> None:
    server.answers = [refusal(429, "TooManyRequests", "too many requests") for _ in range(3)]
    with pytest.raises(KubeError, match="Cannot get Node n: the API server answered 429: too many requests"):
        await kube.get(NODES, "n")
    assert server.answers == []


async def test_an_eviction_that_a_budget_refuses_is_not_repeated(server: Server, kube: KubeClient) -> None:
    words = "Cannot evict pod as it would violate the pod's disruption budget."
    server.answers = [refusal(429, "TooManyRequests", words)]
    with pytest.raises(Protected, match=rf"Cannot evict Pod team/web-1 now: {words}"):
        await kube.evict("web-1", "team", "u1")
    assert server.answers == []


@pytest.mark.parametrize("dry_run", [True, False])
async def test_an_eviction_names_the_very_pod(server: Server, kube: KubeClient, dry_run: bool) -> None:
    server.answers = [web.json_response({"kind": "Status", "status": "Success"}, status=201)]
    await kube.evict("web-1", "team", "u1", dry_run=dry_run)
    assert (server.requests[0].method, server.requests[0].path) == (
        "POST",
        "/api/v1/namespaces/team/pods/web-1/eviction",
    )
    body = json.loads(server.bodies[0])
    assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == ("policy/v1", "Eviction", "web-1")
    assert body["deleteOptions"] == {"preconditions": {"uid": "u1"}, **({"dryRun": ["All"]} if dry_run else {})}


async def test_an_expired_token_is_read_again_once(server: Server, kube: KubeClient) -> None:
    server.write_kubeconfig("second")
    server.answers = [refusal(401, "Unauthorized", "Unauthorized"), web.json_response({"metadata": {"name": "n"}})]
    await kube.get(NODES, "n")
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer first", "Bearer second"]
    server.answers = [refusal(401, "Unauthorized", "Unauthorized") for _ in range(2)]
    with pytest.raises(KubeError, match="does not accept our credentials"):
        await kube.get(NODES, "n")
    assert server.answers == []


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            refusal(403, "Forbidden", 'nodeloans "l" is forbidden: no'),
            Forbidden,
            'Cannot patch NodeLoan l: nodeloans "l" is forbidden: no; if this is about rights, '
            "give Tidegate's account the verb `patch` on `nodeloans/status.tidegate.dev` (the chart's role has it).",
        ),
        (
            refusal(422, "Invalid", "spec.wanted:\n  Unsupported value."),
            Invalid,
            "Cannot patch NodeLoan l: the API server refuses it: spec.wanted: Unsupported value.",
        ),
        (
            refusal(404, "NotFound", "the server could not find the requested resource"),
            NotFound,
            "Cannot patch NodeLoan l: it does not exist (the server could not find the requested resource).",
        ),
        (
            web.Response(status=502, text="<html>Bad Gateway</html>", reason="Bad Gateway"),
            KubeError,
            "Cannot patch NodeLoan l: the API server answered 502: <html>Bad Gateway</html>.",
        ),
        (
            web.Response(text="<html>log in</html>"),
            Unreachable,
            "Cannot patch NodeLoan l: the API server does not answer (its answer is not JSON).",
        ),
    ],
    ids=["forbidden", "invalid", "not-found", "gateway", "captive-portal"],
)
async def test_a_refusal_is_one_sentence_and_is_not_repeated(
    server: Server, kube: KubeClient, answer: web.Response, error: type[KubeError], message: str
) -> None:
    server.answers = [answer]
    with pytest.raises(error) as caught:
        await kube.patch(NODE_LOANS, "l", {"status": {}}, subresource="status")
    assert str(caught.value) == message
    assert len(server.requests) == 1


async def test_a_silent_server_is_given_up(server: Server, kube: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.json_response({})

    monkeypatch.setattr(client, "_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    server.answers = [hang]
    with pytest.raises(Unreachable, match=r"Cannot create Lease a/l: .* \(no answer in time\)"):
        await kube.create(LEASES, {"metadata": {"name": "l"}}, "a")
    released.set()


async def test_a_server_that_is_away_is_unreachable(server: Server, kube: KubeClient) -> None:
    await server.http.close()
    with pytest.raises(Unreachable, match=r"Cannot list nodes: the API server does not answer \(.+\)"):
        await kube.list(NODES)


@pytest.mark.parametrize("content", [None, "no: [yaml", "apiVersion: v1\n"])
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Unreachable, match=f"Cannot connect to Kubernetes with {path}: "):
        await KubeClient.connect(path, "tidegate")


async def test_in_a_pod_the_service_account_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(Unreachable, match=r"with the pod's service account: .*token"):
        await KubeClient.connect(None, "tidegate")
