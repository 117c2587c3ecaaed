"""What can go wrong when the API server is asked for something. Each error says it in one sentence for people.

KubeError
 ├─ NotFound       there is no such object
 ├─ AlreadyExists  an object of that name is there
 ├─ Conflict       the object is not as it was seen: look again
 ├─ Protected      a disruption budget does not let the pod go now
 ├─ Forbidden      our account lacks a right
 ├─ Invalid        the server refuses the content
 └─ Unreachable    no answer: whether the request had an effect is not known
"""

# The words of the API itself, which everybody who catches them knows.
# ruff: noqa: N818

from __future__ import annotations

from tidegate.cluster.kinds import Kind


class KubeError(Exception):
    """A request to the API server failed. `status` is the HTTP status, 0 without an answer; `str()` is one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class NotFound(KubeError):
    """There is no such object."""


class AlreadyExists(KubeError):
    """An object of that name is there already."""


class Conflict(KubeError):
    """The object is not as it was seen (resourceVersion or UID): look at it again before acting."""


class Protected(KubeError):
    """The pod is not evicted now, because a disruption budget (or the server's load) does not allow it."""


class Forbidden(KubeError):
    """Our account lacks a right; the message names the verb and the resource."""


class Invalid(KubeError):
    """The server refuses the content; the message has the server's words."""


class Unreachable(KubeError):
    """There was no answer. The request may have had its effect or not."""


def refused(
    status: int,
    reason: str,
    words: str,
    verb: str,
    kind: Kind,
    name: str = "",
    namespace: str = "",
    subresource: str = "",
) -> KubeError:
    """The error for an answer of the API server.

    `reason` and `words` are those of its Status object (or the HTTP reason), `verb` is the one that roles name.
    """
    thing = _describe(kind, name, namespace)
    words = " ".join(words.split()).rstrip(".") or reason or "no reason given"
    if status == 404:
        return NotFound(status, f"Cannot {verb} {thing}: it does not exist ({words}).")
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, f"Cannot {verb} {thing}: it exists already.")
    if status == 409:
        return Conflict(status, f"Cannot {verb} {thing}: it changed since it was looked at ({words}).")
    if status == 429 and subresource == "eviction":
        return Protected(status, f"Cannot evict {thing} now: {words}.")
    if status == 403:
        resource = (
            f"{kind.plural}/{subresource}{kind.resource.removeprefix(kind.plural)}" if subresource else kind.resource
        )
        return Forbidden(
            status,
            f"Cannot {verb} {thing}: {words}; if this is about rights, give Tidegate's account "
            f"the verb `{verb}` on `{resource}` (the chart's role has it).",
        )
    if status == 401:
        return KubeError(status, f"Cannot {verb} {thing}: the API server does not accept our credentials ({words}).")
    if status in (400, 422):
        return Invalid(status, f"Cannot {verb} {thing}: the API server refuses it: {words}.")
    return KubeError(status, f"Cannot {verb} {thing}: the API server answered {status}: {words}.")


def unreachable(why: str, verb: str, kind: Kind, name: str = "", namespace: str = "") -> Unreachable:
    """The error for a request without an answer."""
    return Unreachable(0, f"Cannot {verb} {_describe(kind, name, namespace)}: the API server does not answer ({why}).")


def _describe(kind: Kind, name: str, namespace: str) -> str:
    """An object in words: `Pod jobs/web-1`, `Node gpu-7`, or the plural for a collection."""
    if not name:
        return f"{kind.plural} in {namespace}" if namespace else kind.plural
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"
