"""Connections that carry one answer, because slurmrestd 26.05 sends more.

It answers an error twice (JSON, then plain text), and after an answer to `Connection: close` it writes that header
once more (seen with 26.05.5). aiohttp takes either for a broken answer and drops the good one before it; on a kept
connection the second would be taken for the answer to the next request.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
import sys

import aiohttp
from aiohttp.client_proto import ResponseHandler

KEEP_ALIVE = {"Connection": "keep-alive"}
"""For each request, so that slurmrestd adds nothing to good answers. The connection is closed all the same."""


class OneAnswerConnector(aiohttp.TCPConnector):
    """A new connection for each request, which ends where the first answer ends."""

    def __init__(self, tls: ssl.SSLContext, limit: int) -> None:
        super().__init__(ssl=tls, limit=limit, force_close=True)
        self._factory = functools.partial(_one_answer, self._loop)


class _OneAnswer(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head = b""
        self._received = 0
        self._length: int | None = None

    def data_received(self, data: bytes) -> None:
        if self._length is None:
            self._head += data
            self._length = _length(self._head)
            if self._length is not None:
                self._head = b""
        wanted = data if self._length is None else data[: max(self._length - self._received, 0)]
        self._received += len(data)
        if wanted:
            super().data_received(wanted)


def _one_answer(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _OneAnswer(loop)


def _length(start: bytes) -> int | None:
    """Bytes of the whole answer, head and body, or None while its head is not complete."""
    head, end, _ = start.partition(b"\r\n\r\n")
    if not end:
        return None
    body = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    return len(head) + len(end) + int(body[1]) if body else sys.maxsize
