"""Requests to one slurmrestd: token, TLS, time-outs, retries, circuit, and every way of failing told apart."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec

from tidegate.slurm.circuit import Circuit
from tidegate.slurm.errors import PermissionRefused, Rejected, SlurmError, TokenRefused, Unreachable
from tidegate.slurm.one_answer import KEEP_ALIVE, OneAnswerConnector
from tidegate.slurm.records import Answer, Problem
from tidegate.slurm.token import TokenSource

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
LONG_LIST_SECONDS = 60.0
"""slurmrestd needs half a millisecond for each job of a full list before it sends the first byte."""
RETRIES = 2
RETRY_SECONDS = 0.2

# Slurm's error numbers, by what follows from them
_TOKEN_PROBLEMS = {1007}
_RIGHTS_PROBLEMS = {2002, 2010, 2080}
# with HTTP 500 or 403: -1 and 1 ("Operation not permitted") are what some calls make of a silent slurmctld
_NO_CONTROLLER = {-1, 1, 1001, 1002, 1004, 1800, 1801, 1802, 1803, 1804, 5004}

T = TypeVar("T", bound=Answer)
OnRequest = Callable[[str, float, str], None]


class PathUnknown(SlurmError):  # noqa: N818 - it is an answer, not an error
    """slurmrestd has no such path: it does not speak this version, or no longer."""

    def __init__(self, message: str) -> None:
        super().__init__("PathUnknown", message)


class Rest:
    """One slurmrestd. `cluster` names it in messages; `ca_pem` replaces the system's certificate authorities.

    `random` gives numbers from 0 to 1 for the jitter of retries. `on_request` hears of each request: method and kind of
    object (such as `GET nodes`), seconds, and the reason of the failure, empty if there was none.
    """

    def __init__(
        self,
        cluster: str,
        endpoint: str,
        user: str,
        tokens: TokenSource,
        ca_pem: bytes | None,
        clock: Callable[[], datetime],
        random: Callable[[], float],
        on_request: OnRequest,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._endpoint = endpoint.rstrip("/")
        self._user = user
        self._tokens = tokens
        self._tls = _tls(cluster, ca_pem)
        self._random = random
        self._on_request = on_request
        self._total_seconds = total_seconds
        self._circuit = Circuit(clock)
        self._session: aiohttp.ClientSession | None = None

    async def read(
        self, path: str, answer: type[T], query: Mapping[str, str] | None = None, seconds: float | None = None
    ) -> T:
        """GET what has no effect. Without a connection or a proper answer it is repeated, up to RETRIES times."""
        for attempt in range(RETRIES + 1):
            try:
                return await self._guarded("GET", path, answer, query, None, seconds)
            except _Unanswered as error:
                if attempt == RETRIES:
                    raise Unreachable(error.message) from error
                await asyncio.sleep(self._random() * RETRY_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def act(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        answer: type[T],
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> T:
        """Send what has an effect, once: what is to be repeated after a lost answer is for the caller to look up."""
        try:
            return await self._guarded(method, path, answer, query, body, None)
        except _Unanswered as error:
            raise Unreachable(error.message) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _guarded(
        self, method: str, path: str, answer: type[T], query: Mapping[str, str] | None, body: Any, seconds: float | None
    ) -> T:
        self._circuit.enter()
        started, reason = time.monotonic(), ""
        try:
            result = await self._send(method, path, answer, query, body, seconds or self._total_seconds)
        except (Unreachable, TokenRefused, _Unanswered) as error:
            reason = error.reason
            self._circuit.failed(Unreachable(error.message) if isinstance(error, _Unanswered) else error)
            raise
        except SlurmError as error:
            reason = error.reason
            self._circuit.succeeded()
            raise
        finally:
            self._on_request(f"{method} {path.split('/')[3]}", time.monotonic() - started, reason)
        self._circuit.succeeded()
        return result

    async def _send(
        self, method: str, path: str, answer: type[T], query: Mapping[str, str] | None, body: Any, seconds: float
    ) -> T:
        session = self._connected()
        try:
            async with session.request(
                method,
                f"{self._endpoint}{path}",
                params=query,
                json=body,
                # With `close` slurmrestd 24.11 writes `Connection: Close` behind the body, which is no HTTP.
                headers={"X-SLURM-USER-TOKEN": self._tokens.token(), "Connection": "keep-alive"},
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
            ) as response:
                content = bytearray()
                # grows in place: joining the pieces of a list of many jobs would need its memory twice
                async for piece in response.content.iter_any():
                    content += piece
                return self._understood(response.status, memoryview(content), answer, path)
        except TimeoutError as error:
            raise Unreachable(
                f"Slurm cluster {self._cluster}: no answer from {self._endpoint} within {seconds:g} s; "
                "check the address, slurmrestd and slurmctld"
            ) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unreachable(
                f"Slurm cluster {self._cluster}: the certificate of {self._endpoint} is not trusted "
                f"({error.certificate_error}); put the CA that signed it into `ca.crt` of the credentials Secret"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Unanswered(
                f"Slurm cluster {self._cluster}: {self._endpoint} does not answer ({error}); "
                "check the address and slurmrestd"
            ) from error

    def _understood(self, status: int, content: memoryview, answer: type[T], path: str) -> T:
        """The answer, if it is one without errors. slurmrestd puts errors into HTTP 200 as into all other codes."""
        if status == 401:
            raise self._tokens.refused(self._cluster)
        try:
            parsed = _decode(content, answer)
        except msgspec.MsgspecError as error:
            if status == 404:
                raise PathUnknown(f"Slurm cluster {self._cluster} does not know {path}") from error
            words = f"Slurm cluster {self._cluster}: HTTP {status} for {path}"
            if status >= 500:
                raise _Unanswered(
                    f"{words} without an answer of Slurm; check slurmrestd and what is before it"
                ) from error
            raise Unreachable(f"{words} is no answer of slurmrestd ({error}); check the address") from error
        problems = parsed.errors or []
        if status < 300 and not problems:
            return parsed
        raise self._problem(status, problems, path)

    def _problem(self, status: int, problems: list[Problem], path: str) -> SlurmError:
        numbers = {problem.error_number for problem in problems}
        words = "; ".join(problem.words() for problem in problems) or f"HTTP {status} for {path}"
        if status == 511 or numbers & _TOKEN_PROBLEMS:
            return self._tokens.refused(self._cluster)
        if status in (502, 503, 504) or (status in (403, 500) and numbers & _NO_CONTROLLER):
            return Unreachable(f"Slurm cluster {self._cluster}: slurmctld does not answer slurmrestd ({words})")
        if numbers & _RIGHTS_PROBLEMS:
            return PermissionRefused(
                f"Slurm cluster {self._cluster}: the token's user ({self._user} if minted) may not do this ({words}); "
                "use SlurmUser, or give it the accounting level Administrator"
            )
        return Rejected(f"Slurm cluster {self._cluster}: {words}", *sorted(numbers))

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=OneAnswerConnector(self._tls, limit=8), headers=KEEP_ALIVE)
            # aiohttp repeats GET and DELETE when a connection breaks, but here they signal and requeue
            self._session._retry_connection = False
        return self._session


class _Unanswered(SlurmError):  # noqa: N818 - it is part of the loop above
    """No answer at all, so quickly that asking again soon makes sense."""

    def __init__(self, message: str) -> None:
        super().__init__("Unreachable", message)


def _decode(content: memoryview, answer: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=answer)
    except UnicodeDecodeError:
        # anybody can put any bytes into a comment
        return msgspec.json.decode(bytes(content).decode("utf-8", "replace"), type=answer)


def _tls(cluster: str, ca_pem: bytes | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_pem.decode("ascii") if ca_pem else None)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise SlurmError(
            "InvalidCertificate",
            f"Slurm cluster {cluster}: `ca.crt` of the credentials Secret holds no certificate in PEM form; replace it",
        ) from error
