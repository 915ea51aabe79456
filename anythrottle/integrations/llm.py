"""What calls of language models cost in tokens: told to a throttled HTTP client, for any SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

from .._policies.checks import check_count
from ._llm_answer import usage_of
from ._llm_request import tokens_of

__all__ = ("Request", "Response", "TokenCost")


class Request(Protocol):
    """What is looked at of a request, as those of httpx2 and httpx have it."""

    @property
    def method(self) -> str:
        """Its method: only a ``POST`` costs tokens."""
        ...

    @property
    def url(self) -> object:
        """Its address: a text, or an object with a ``path``."""
        ...

    @property
    def content(self) -> bytes:
        """Its body; raises an error of any kind if that is not at hand, such as a stream."""
        ...


class Response(Protocol):
    """What is looked at of an answer, as those of httpx2 and httpx have it."""

    @property
    def status_code(self) -> int:
        """Its status."""
        ...

    @property
    def content(self) -> bytes:
        """Its body, decoded; raises an error of any kind if that has not been read."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCost:
    """
    Tells what calls of language models cost in tokens: before, by estimate; and after.

    Its two methods are for a throttled transport of httpx2 or httpx, which the SDKs of OpenAI and
    Anthropic take by ``http_client=``: ``ThrottledTransport(..., cost=tokens.estimate,
    settle=tokens.used)``. They know chat completions, responses, completions and embeddings, as
    OpenAI and many others have them, and the messages of Anthropic.

    >>> import httpx2
    >>> tokens = TokenCost()
    >>> prompt = {"messages": [{"role": "user", "content": "Why?"}], "max_completion_tokens": 500}
    >>> url = "https://api.openai.com/v1/chat/completions"
    >>> tokens.estimate(httpx2.Request("POST", url, json=prompt))
    {'tokens': 517}
    >>> usage = {"prompt_tokens": 8, "completion_tokens": 40, "total_tokens": 48}
    >>> tokens.used(httpx2.Response(200, json={"usage": usage}))
    {'tokens': 48}

    Neither method raises, whatever it is given.

    :param default_output: how many tokens an answer is taken to have if its request doesn't bound
        it, at least 0
    :param split: whether ``input-tokens`` and ``output-tokens`` are told one by one, as Anthropic
        limits them, instead of ``tokens``, which is both
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if ``default_output`` is negative

    """

    default_output: int = 1024
    split: bool = False

    def __post_init__(self) -> None:
        check_count("default_output", self.default_output, least=0)
        if not isinstance(self.split, bool):
            raise TypeError(f"split must be a bool, not {self.split!r}")

    def estimate(self, request: Request) -> dict[str, int]:
        """
        Return what a request may cost at most, by a guess that is high rather than low.

        What it says: a token for every three bytes of UTF-8 of all its texts, names of members
        included, and one for each number. English has four or five bytes in a token, code and most
        other scripts about three. Each image, recording or file, whether it is in the body or
        named by an address or id, is 1600 tokens: what a large image costs, whatever its bytes.

        What its answer says: the most that the request allows (``max_tokens`` and its like), or
        ``default_output``; times the answers it asks for (``n``, ``best_of``, several prompts).
        Embeddings and moderations are answered without tokens.

        A guess that is too high takes room from others until the answer is there, one that is too
        low lets too much through. What the guess doesn't know, such as long files, the history of a
        conversation that the provider keeps, and its own tools, is counted when the answer tells.

        A request costs no tokens if it isn't a ``POST``, if its body is not JSON or not at hand (an
        upload, a stream), or if it is for ``batches`` or ``count_tokens``, because these have
        limits of their own. A body of more than 4 MiB, images aside, is all measured as text, and
        its ``max_tokens`` not looked for.
        """
        body = _look(request, "content")
        if _look(request, "method") != "POST" or not isinstance(body, bytes):
            return self._cost(0, 0)

        return self._cost(*tokens_of(body, _path(_look(request, "url")), self.default_output))

    def used(self, response: Response) -> dict[str, int] | None:
        """
        Return what a call has cost by its answer's usage; ``None`` if it doesn't tell.

        The answer may be JSON or a stream of server-sent events. OpenAI's chat completions tell
        their usage in a stream only if asked: ``stream_options={"include_usage": True}``.

        Tokens that were read from a cache count if they are part of ``prompt_tokens`` or
        ``input_tokens``, as OpenAI has it, whose limits count them. Anthropic tells them beside
        ``input_tokens``, and for most of its models they don't count; those that were written to
        the cache do.

        Errors tell nothing; nor do streams that break off or end in an error, answers above 4 MiB,
        those to requests that are known to be no ``POST`` (they tell again what an earlier call has
        cost), and numbers that are negative, no ints, or above 10 ** 15.
        """
        body = _look(response, "content")
        status = _look(response, "status_code")
        if not (isinstance(status, int) and 200 <= status < 300 and isinstance(body, bytes)):  # noqa: PLR2004
            return None

        if _look(_look(response, "request"), "method") not in ("POST", None):
            return None

        usage = usage_of(body)
        return None if usage is None else self._cost(*usage)

    def _cost(self, read: int, written: int) -> dict[str, int]:
        """Return a number of tokens, in the units that were promised."""
        if self.split:
            return {"input-tokens": read, "output-tokens": written}

        return {"tokens": read + written}


def _look(at: object, name: str) -> object:
    """Return an attribute, or ``None`` if reading it raises an error."""
    try:
        value: object = getattr(at, name)
    except Exception:  # noqa: BLE001 - not read yet, not set, or a stand-in that lacks it
        return None

    return value


def _path(url: object) -> str:
    """Return the path of an address; if that is a text, all that comes before a query."""
    path = url if isinstance(url, str) else _look(url, "path")
    return path.partition("?")[0] if isinstance(path, str) else ""
