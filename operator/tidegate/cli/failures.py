"""Which failures people are told of in one sentence, and which are bugs and keep their stack trace."""

from __future__ import annotations

from collections.abc import Iterator

_EXTRA = frozenset({"aiohttp", "jwt", "kopf", "kubernetes", "prometheus_client"})
"""What the extra `operator` brings."""


class Failed(Exception):  # noqa: N818 - the word of the command line
    """A command could not do what it was asked; `str()` is one sentence."""


def sentence(error: BaseException) -> str | None:
    """What to tell of a foreseen failure; None for a bug. Of a group each is told once."""
    told = [_sentence(part) for part in _parts(error)]
    return None if None in told else " ".join(dict.fromkeys(words for words in told if words))


def _parts(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for part in error.exceptions:
        yield from _parts(part)


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        words = f"This command needs the Python package {missing}: install `tidegate[operator]`."
        return words if missing in _EXTRA else None
    from tidegate.cluster.errors import KubeError
    from tidegate.sharing.explanation import UnknownObjectError

    # The operator ends itself with a RuntimeError when it cannot go on, and with an OSError when a port is taken.
    foreseen = isinstance(error, Failed | KubeError | UnknownObjectError | OSError) or type(error) is RuntimeError
    return str(error) if foreseen else None
