"""The door to the API server: raw JSON objects in and out, errors as sentences."""

# The library is typed in part only.
# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.utils import Backoff, is_too_many_requests, on_retry_after_error

from tidegate.cluster import errors
from tidegate.cluster.kinds import PODS, Kind

Json = dict[str, Any]
"""An object of Kubernetes, as the API server writes it."""
Objects = list[Json]

FIELD_MANAGER = "tidegate"
"""Under this name the API server keeps which fields of an applied object are ours."""

_METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_CHUNK = 500
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
# The API server throttles with 429 before it does anything, so that repeating is safe for every verb.
_THROTTLED = Backoff(steps=3, duration=0.5, factor=2.0)
_LONGEST_RETRY_AFTER_SECONDS = 5.0


class KubeApi(Protocol):
    """What Tidegate asks of the API server. Every method may raise any `KubeError`."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        """The object as it is now. Raises `NotFound`."""

    async def list(
        self, kind: Kind, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        """All objects of the kind at one moment not before the call; of all namespaces when none is named."""

    async def create(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        """Make the object that `body` describes and return it. Raises `AlreadyExists`, `Invalid`."""

    async def patch(self, kind: Kind, name: str, body: Json, namespace: str = "", subresource: str = "") -> Json:
        """Change an object by a merge patch (RFC 7386: null deletes a field, a list replaces the old one).

        With `metadata.resourceVersion` in the body, raises `Conflict` unless that is still the object's version.
        Without `subresource="status"` the status stays as it is, with it everything else does.
        Raises `NotFound`, `Invalid`.
        """

    async def apply(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        """Make the object, or change it so that all that `body` says is so (server-side apply, by force).

        What an earlier `apply` said and `body` does not say is taken back; what others said stays. Raises `Invalid`.
        """

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """Ask for the object's end; finalizers and the kubelet may keep it for a while.

        Raises `NotFound`, and `Conflict` when the object has another UID than `uid`.
        """

    async def evict(self, name: str, namespace: str, uid: str, dry_run: bool = False) -> None:
        """Ask for a pod's end as far as its disruption budgets allow; with `dry_run` only whether they would.

        Raises `Protected` when they do not, `NotFound`, and `Conflict` when the pod has another UID.
        """

    async def close(self) -> None:
        """Close the connections; nothing may be asked afterwards."""


class KubeClient:
    """`KubeApi` on a real API server. Make one with `connect`."""

    def __init__(self, api: ApiClient, reload: Callable[[], Awaitable[None]] | None = None) -> None:
        """`reload` reads the credentials of `api` again; None when the library does so by itself."""
        self._api = api
        self._reload = reload

    @classmethod
    async def connect(cls, kubeconfig: Path | None, user_agent: str) -> Self:
        """A client for the cluster of `kubeconfig`; without one, of the pod we run in, or of `$KUBECONFIG`.

        Raises `Unreachable` when none of them tells how to reach a cluster. It sends no request yet.
        """
        configuration = Configuration()
        in_pod = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ

        async def read_kubeconfig() -> None:
            path = str(kubeconfig) if kubeconfig else None
            await load_kube_config(config_file=path, client_configuration=configuration)

        try:
            if in_pod:
                # The library reads the projected token again each minute.
                load_incluster_config(client_configuration=configuration)
            else:
                await read_kubeconfig()
        except (ConfigException, OSError, yaml.YAMLError) as error:
            source = "the pod's service account" if in_pod else str(kubeconfig or "$KUBECONFIG or ~/.kube/config")
            why = " ".join(str(error).split()).rstrip(".")
            raise errors.Unreachable(0, f"Cannot connect to Kubernetes with {source}: {why}.") from error
        api = ApiClient(configuration)
        api.user_agent = user_agent
        # Tokens of a kubeconfig expire, too; reading it again runs its credential plugin again.
        return cls(api, None if in_pod else read_kubeconfig)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        return await self._request("get", kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": str(_CHUNK)}
        found: Objects = []
        while True:
            page = await self._request("list", kind, "", namespace, query=query)
            for item in page.get("items") or []:
                # Items of the built-in kinds come without these.
                item["apiVersion"], item["kind"] = kind.api_version, kind.kind
                found.append(item)
            token = page["metadata"].get("continue")
            if not token:
                return found
            query["continue"] = token

    async def create(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        return await self._request("create", kind, body["metadata"]["name"], namespace, body=whole)

    async def patch(self, kind: Kind, name: str, body: Json, namespace: str = "", subresource: str = "") -> Json:
        return await self._request("patch", kind, name, namespace, subresource=subresource, body=body)

    async def apply(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("patch", kind, body["metadata"]["name"], namespace, query=query, body=whole)

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str = "", grace_seconds: int | None = None
    ) -> None:
        options: Json = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._request("delete", kind, name, namespace, body=options)

    async def evict(self, name: str, namespace: str, uid: str, dry_run: bool = False) -> None:
        options: Json = {"preconditions": {"uid": uid}, **({"dryRun": ["All"]} if dry_run else {})}
        body: Json = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        path = PODS.path(namespace, name, "eviction")
        await self._ask("create", PODS, name, namespace, path, "eviction", body=body)

    async def openapi(self, api_version: str) -> Json:
        """The API server's own OpenAPI v3 document of a group and version. Raises `NotFound` when it has none."""
        document = Kind("openapi", api_version, "OpenAPI", namespaced=False)
        return await self._ask("get", document, api_version, "", f"/openapi/v3/apis/{api_version}")

    async def close(self) -> None:
        await self._api.close()

    async def _request(
        self,
        verb: str,
        kind: Kind,
        name: str,
        namespace: str,
        subresource: str = "",
        query: dict[str, str] | None = None,
        body: Json | None = None,
    ) -> Json:
        path = kind.path(namespace, "" if verb == "create" else name, subresource)
        return await self._ask(verb, kind, name, namespace, path, subresource, query, body)

    async def _ask(
        self,
        verb: str,
        kind: Kind,
        name: str,
        namespace: str,
        path: str,
        subresource: str = "",
        query: dict[str, str] | None = None,
        body: Json | None = None,
    ) -> Json:
        try:
            # A budget that refuses an eviction says 429 as well, and waiting in the request does not help there.
            patient = subresource != "eviction"
            return await self._send(verb, path, query or {}, body, patient)
        except ApiException as error:
            reason, words = _words(error.body)
            raise errors.refused(
                error.status, reason or str(error.reason), words, verb, kind, name, namespace, subresource
            ) from error
        except json.JSONDecodeError as error:
            raise errors.unreachable("its answer is not JSON", verb, kind, name, namespace) from error
        except (aiohttp.ClientError, OSError, ConfigException) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise errors.unreachable(why, verb, kind, name, namespace) from error

    async def _send(self, verb: str, path: str, query: dict[str, str], body: Json | None, patient: bool) -> Json:
        """One request, repeated if `patient` while the server throttles, and when a kubeconfig has new credentials."""
        ask = self._patiently if patient else self._once
        try:
            return await ask(verb, path, query, body)
        except ApiException as error:
            if error.status != 401 or self._reload is None:
                raise
        await self._reload()
        return await ask(verb, path, query, body)

    async def _patiently(self, verb: str, path: str, query: dict[str, str], body: Json | None) -> Json:
        answer: Json = await on_retry_after_error(
            _THROTTLED, is_too_many_requests, lambda: self._once(verb, path, query, body), _pause
        )
        return answer

    async def _once(self, verb: str, path: str, query: dict[str, str], body: Json | None) -> Json:
        headers = {"Accept": "application/json"}
        if verb == "patch":
            how = "apply-patch+yaml" if "fieldManager" in query else "merge-patch+json"
            headers["Content-Type"] = f"application/{how}"
        request = await self._api.param_serialize(
            _METHODS[verb],
            path,
            query_params={key: value for key, value in query.items() if value},
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        response = await self._api.call_api(*request, _request_timeout=_TIMEOUT)
        data = await response.read()
        if response.status >= 300:
            raise ApiException(http_resp=response)
        answer: Json = json.loads(data)
        return answer


async def _pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, _LONGEST_RETRY_AFTER_SECONDS))


def _words(body: str | None) -> tuple[str, str]:
    """Reason and message of the `Status` object that the API server sends with a refusal."""
    try:
        status = json.loads(body or "")
    except json.JSONDecodeError:
        return "", (body or "")[:200]
    return (str(status.get("reason") or ""), str(status.get("message") or "")) if isinstance(status, dict) else ("", "")
