"""The test's own hands in Kubernetes: raw JSON by the official client, as the administrator."""

# The library is typed in part only.
# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_kube_config

Json = dict[str, Any]

_GROUPS = {
    "nodes": "/api/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
    "secrets": "/api/v1",
    "namespaces": "/api/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "priorityclasses": "/apis/scheduling.k8s.io/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "clusterroles": "/apis/rbac.authorization.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "slurmclusters": "/apis/tidegate.dev/v1alpha1",
    "batchpools": "/apis/tidegate.dev/v1alpha1",
    "nodeloans": "/apis/tidegate.dev/v1alpha1",
    "capacityclaims": "/apis/tidegate.dev/v1alpha1",
    "inferenceservices": "/apis/tidegate.dev/v1alpha1",
}


class Refused(Exception):  # noqa: N818 - an answer of the API server
    """The API server refused a request; `status` is the HTTP status, 0 without an answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


class Kube:
    """Objects by plural name, such as `nodeloans`."""

    def __init__(self, kubeconfig: Path) -> None:
        configuration = Configuration()
        load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        self._api = ApiClient(configuration)

    def list(self, plural: str, namespace: str = "", **query: str) -> list[Json]:
        """All objects, of all namespaces when none is named."""
        items: list[Json] = self._ask("GET", _path(plural, namespace), query=query)["items"]
        return items

    def get(self, plural: str, name: str, namespace: str = "") -> Json | None:
        """The object, or None."""
        try:
            return self._ask("GET", _path(plural, namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def text(self, path: str) -> str:
        """What is at a path of the API server, such as the proxy of a pod, as text."""
        return self._bytes("GET", path).decode()

    def create(self, plural: str, body: Json, namespace: str = "") -> Json:
        """Make an object."""
        return self._ask("POST", _path(plural, namespace), body=body)

    def patch(self, plural: str, name: str, body: Json, namespace: str = "", subresource: str = "") -> Json:
        """Merge a patch into an object."""
        path = _path(plural, namespace, name) + (f"/{subresource}" if subresource else "")
        return self._ask("PATCH", path, body=body)

    def delete(self, plural: str, name: str, namespace: str = "", **options: Any) -> None:
        """Ask for an object's end; one that is gone is fine."""
        try:
            self._ask("DELETE", _path(plural, namespace, name), body=options or None)
        except Refused as error:
            if error.status != 404:
                raise

    def watch(self, plural: str, *, stop: Event, **query: str) -> Iterator[Json]:
        """All objects there are as `ADDED`, then every change in the server's order, until `stop` is set.

        Raises `Refused` when a change may have been missed.
        """
        version = "0"
        while not stop.is_set():
            asked = {"watch": "true", "timeoutSeconds": "2", "allowWatchBookmarks": "true", **query}
            if version == "0":
                first = self._ask("GET", _path(plural), query=query)
                version = first["metadata"]["resourceVersion"]
                yield from ({"type": "ADDED", "object": item} for item in first["items"])
            for line in self._lines(_path(plural), {**asked, "resourceVersion": version}):
                change: Json = json.loads(line)
                if change["type"] == "ERROR":
                    raise Refused(change["object"].get("code", 0), change["object"].get("message", "the watch broke"))
                version = change["object"]["metadata"]["resourceVersion"]
                if change["type"] != "BOOKMARK":
                    yield change

    def close(self) -> None:
        """Let go of the connections."""
        self._api.rest_client.pool_manager.clear()

    def _ask(self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None) -> Json:
        answer: Json = json.loads(self._bytes(method, path, query, body))
        return answer

    def _bytes(self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None) -> bytes:
        try:
            response = self._send(method, path, query, body)
            data: bytes = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Refused(0, str(error)) from error
        if response.status >= 300:
            raise Refused(response.status, data.decode(errors="replace")[:500])
        return data

    def _lines(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        try:
            response = self._send("GET", path, query).response
            if response.status >= 300:
                raise Refused(response.status, response.read().decode(errors="replace")[:500])
            yield from response
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Refused(0, str(error)) from error

    def _send(self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None) -> Any:
        headers = {"Accept": "application/json, text/plain"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        request = self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        return self._api.call_api(*request, _request_timeout=10)


def _path(plural: str, namespace: str = "", name: str = "") -> str:
    parts = [_GROUPS[plural], *(("namespaces", namespace) if namespace else ()), plural, *((name,) if name else ())]
    return "/".join(parts)
