"""Ready means: a real request for one token was answered. A port that listens or a list of models proves nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

log = logging.getLogger(__name__)
HURRY_SECONDS = 1.0
"""The pause between two requests for a token while none was answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, how often, and how long an answer may take."""

    path: str = "/v1/completions"
    model: str = ""
    """The model's name; without it the first that the server lists."""
    interval_seconds: float = 10.0
    timeout_seconds: float = 30.0
    hurry_seconds: float = HURRY_SECONDS


class Silent(Exception):  # noqa: N818 - it is an answer, not an error
    """No token came; `str()` is half a sentence why."""


class Readiness:
    """Asks for a token at the start and whenever nothing else has proved for a while that tokens come.

    Under load the answers of users are the proof: a request of our own would only wait behind theirs, and a busy
    replica that is taken for a dead one makes the others busier.
    """

    def __init__(self, server: str, question: Question, clock: Callable[[], float]) -> None:
        self._server = server
        self._question = question
        self._clock = clock
        self._proof = float("-inf")
        self.ready = False
        self.why_not = "it was not asked yet"

    def works(self) -> None:
        """Somebody just got tokens."""
        self._proof = self._clock()
        if not self.ready:
            log.info("the model server answers")
        self.ready, self.why_not = True, ""

    async def keep(self) -> None:
        """Ask for ever; cancel it to stop."""
        async with ClientSession(timeout=ClientTimeout(self._question.timeout_seconds)) as session:
            while True:
                left = self._proof + self._question.interval_seconds - self._clock()
                if left > 0:
                    await asyncio.sleep(left)
                    continue
                await self._ask(session)
                if not self.ready:
                    await asyncio.sleep(self._question.hurry_seconds)

    async def _ask(self, session: ClientSession) -> None:
        asked = self._clock()
        try:
            await self._one_token(session)
        except Silent as silence:
            # Others may have had their tokens while ours did not come.
            if self._proof < asked:
                if self.why_not != str(silence):
                    log.warning("the model server is not ready: %s", silence)
                self.ready, self.why_not = False, str(silence)
            return
        self.works()

    async def _one_token(self, session: ClientSession) -> None:
        model = self._question.model or await self._first_model(session)
        asked: dict[str, Any] = {"model": model, "max_tokens": 1}
        if self._question.path.endswith("/chat/completions"):
            asked["messages"] = [{"role": "user", "content": "1"}]
        else:
            asked["prompt"] = "1"
        answer = await self._json(session, "POST", self._question.path, asked)
        if not answer.get("choices"):
            raise Silent(f"{self._question.path} was answered without a token")

    async def _first_model(self, session: ClientSession) -> str:
        models = (await self._json(session, "GET", "/v1/models")).get("data") or []
        if not models:
            raise Silent("/v1/models lists no model")
        return str(models[0]["id"])

    async def _json(
        self, session: ClientSession, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            async with session.request(method, self._server + path, json=body) as response:
                if response.status != 200:
                    words = " ".join((await response.text())[:200].split())
                    raise Silent(f"{path} was answered with {response.status}: {words}")
                answer = await response.json(content_type=None)
        except TimeoutError:
            raise Silent(f"{path} was not answered within {self._question.timeout_seconds:g} s") from None
        except (ClientError, OSError) as error:
            raise Silent(f"{path} was not answered: {error or type(error).__name__}") from None
        except ValueError:
            raise Silent(f"{path} was answered with something that is not JSON") from None
        if not isinstance(answer, dict):
            raise Silent(f"{path} was answered with something that is no object")
        return answer
