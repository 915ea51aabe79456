"""Which headers a service sends, and what it means by them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, TypeVar

from .._policies.checks import check_amount, check_seconds, check_unit

T = TypeVar("T")

#: When a status is a refusal: always, or only if the answer tells when to come again.
When: TypeAlias = Literal["always", "told"]

#: The name of a header, as :rfc:`9110` defines it.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: The headers that are looked at under every profile.
_ALWAYS = ("date", "ratelimit", "ratelimit-policy", "x-should-retry")


@dataclass(frozen=True, slots=True)
class QuotaFields:
    """
    The headers that tell of one quota.

    >>> QuotaFields("X-Left", "X-Most", reset=("X-Reset",), window=60)
    QuotaFields(remaining='x-left', limit='x-most', reset=('x-reset',), unit='calls', window=60.0,
    used_of=None, flow=False, per_second=None)

    The case of header names does not matter. The form of a reset follows from its shape: a number
    below 1e9 is seconds to come, below 1e11 seconds since 1970, and else milliseconds since 1970;
    ``6m0s`` is a duration; instants are read in the form of :rfc:`3339`, and as HTTP dates.

    :param remaining: the header that tells how much is left, ``None`` if there is none
    :param limit: the header that tells the limit, ``None`` if there is none
    :param reset: the headers that tell when there is more; the first that tells it counts
    :param unit: what is counted
    :param window: the time that the limit is for, in seconds, above 0; ``None`` if it is unknown
    :param used_of: the header that tells what is used, and the limit, such as ``32/40``
    :param flow: whether the reset is when all is there again, because it flows back steadily
    :param per_second: how much flows back in a second, in ``unit``, above 0; used where no header
        tells a reset
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range, or none of ``remaining``, ``limit`` and
        ``used_of`` is named

    """

    remaining: str | None
    limit: str | None
    reset: tuple[str, ...] = ()
    unit: str = "calls"
    window: float | None = None
    used_of: str | None = None
    flow: bool = False
    per_second: float | None = None

    def __post_init__(self) -> None:
        for name in ("remaining", "limit", "used_of"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _header(name, value))

        if self.remaining is None and self.limit is None and self.used_of is None:
            raise ValueError(
                "remaining, limit or used_of must be the name of a header; all are None"
            )

        names = _tuple("reset", self.reset, "names of headers")
        object.__setattr__(self, "reset", tuple(_header("reset", name) for name in names))
        object.__setattr__(self, "unit", check_unit(self.unit))
        if self.window is not None:
            object.__setattr__(self, "window", check_seconds("window", self.window))

        if not isinstance(self.flow, bool):
            raise TypeError(f"flow must be a bool, not {self.flow!r}")

        if self.per_second is not None:
            flows = check_amount("per_second", self.per_second)
            object.__setattr__(self, "per_second", flows)

    @property
    def names(self) -> frozenset[str]:
        """The names of all these headers, in lower case."""
        single = (self.remaining, self.limit, self.used_of)
        return frozenset((*filter(None, single), *self.reset))


def _usual_refusals() -> dict[int, When]:
    return {429: "always", 503: "told"}


@dataclass(frozen=True, slots=True)
class Profile:
    """
    How a service says what is left, and how it refuses: data for :func:`read_figures`.

    >>> from anythrottle.integrations.headers import Profile, QuotaFields, read_figures
    >>> mine = Profile("mine", (QuotaFields("x-left", None),), refusals={429: "always"})
    >>> read_figures(200, [("X-Left", "7")], mine, utc=0).quotas
    (Quota(unit='calls', limit=None, window=None, remaining=7, reset_after=None),)

    The fields ``RateLimit`` and ``RateLimit-Policy`` of the IETF's drafts are read under every
    profile, and so are ``RateLimit-Limit``, ``RateLimit-Remaining`` and ``RateLimit-Reset`` of the
    older ones.

    :param name: the service's, for messages; not empty
    :param quotas: the headers that tell of each quota
    :param refusals: by status, from 100 to 599: ``"always"`` if such an answer is a refusal,
        ``"told"`` if it is one only with the time after which to come again, or with a quota that
        has nothing left. The default is ``{429: "always", 503: "told"}``
    :param doubtful: the statuses after which it is unknown whether the server did anything
    :param retry_after: the headers that tell how long to wait after a refusal, each with what its
        number is multiplied by to be seconds, above 0; the first that tells anything counts
    :param first_pause: the pause after the first refusal that tells nothing, in seconds, above 0
    :param bucket: the header that names the set of quotas that the others speak of
    :param everywhere: a header, and the value of it that says that a refusal is for all hosts and
        keys; the case of the value does not matter
    :ivar known: the names of all headers that are looked at, in lower case
    :ivar rows: ``quotas``, and the headers of the older drafts if none of them is among those
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if a parameter is out of its range

    """

    name: str
    quotas: tuple[QuotaFields, ...]
    refusals: Mapping[int, When] = field(default_factory=_usual_refusals)
    doubtful: AbstractSet[int] = frozenset({503})
    retry_after: tuple[tuple[str, float], ...] = (("retry-after", 1.0),)
    first_pause: float = 1.0
    bucket: str | None = None
    everywhere: tuple[str, str] | None = None
    known: frozenset[str] = field(init=False, repr=False, compare=False)
    rows: tuple[QuotaFields, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str, not {self.name!r}")

        if not self.name:
            raise ValueError("name must not be empty")

        self._set("quotas", _checked_quotas(self.quotas))
        self._set("refusals", _checked_refusals(self.refusals))
        statuses = _tuple("doubtful", self.doubtful, "statuses")
        self._set("doubtful", frozenset(_status("doubtful", status) for status in statuses))
        self._set("retry_after", _checked_pauses(self.retry_after))
        self._set("first_pause", check_seconds("first_pause", self.first_pause))
        if self.bucket is not None:
            self._set("bucket", _header("bucket", self.bucket))

        if self.everywhere is not None:
            self._set("everywhere", _checked_everywhere(self.everywhere))

        named = {name for fields in self.quotas for name in fields.names}
        own = _EARLY_DRAFTS.names & named
        self._set("rows", self.quotas if own else (*self.quotas, _EARLY_DRAFTS))
        single = {self.bucket, self.everywhere and self.everywhere[0]} - {None}
        pauses = (name for name, _ in self.retry_after)
        known = frozenset((*_ALWAYS, *_EARLY_DRAFTS.names, *named, *pauses, *filter(None, single)))
        self._set("known", known)

    def __hash__(self) -> int:
        return hash((self.name, self.quotas, frozenset(self.refusals.items())))

    def __reduce__(self) -> tuple[type[Profile], tuple[object, ...]]:
        told = (self.name, self.quotas, dict(self.refusals), self.doubtful, self.retry_after)
        return Profile, (*told, self.first_pause, self.bucket, self.everywhere)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def profile_of(value: Profile | str) -> Profile:
    """
    Return a profile as it is, or the one of :data:`PROFILES` by its name.

    :raises TypeError: if it is neither a profile nor a str
    :raises ValueError: if there is no profile of that name

    """
    if isinstance(value, Profile):
        return value

    if not isinstance(value, str):
        raise TypeError(f"profile must be a Profile or the name of one, not {value!r}")

    if value not in PROFILES:
        names = ", ".join(map(repr, PROFILES))
        raise ValueError(f"profile must be a Profile, or one of {names}, not {value!r}")

    return PROFILES[value]


def _tuple(name: str, value: Iterable[T], what: str) -> tuple[T, ...]:
    """Return the elements of something that is no text."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a tuple of {what}, not {value!r}")

    return tuple(value)


def _header(name: str, value: object) -> str:
    """Return the name of a header in lower case, if it is one."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a header, not {value!r}")

    if _NAME.fullmatch(value) is None:
        raise ValueError(f"{name} must be the name of a header, not {value!r}")

    return value.lower()


def _status(name: str, value: object) -> int:
    """Return a status of HTTP, if it is one."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must hold statuses, which are ints, not {value!r}")

    if not 100 <= value <= 599:  # noqa: PLR2004 - they are three digits, and begin with 1 to 5
        raise ValueError(f"{name} must hold statuses from 100 to 599, not {value!r}")

    return value


def _checked_quotas(value: Iterable[object]) -> tuple[QuotaFields, ...]:
    quotas: list[QuotaFields] = []
    for fields in _tuple("quotas", value, "QuotaFields"):
        if not isinstance(fields, QuotaFields):
            raise TypeError(f"quotas must hold QuotaFields only, not {fields!r}")

        quotas.append(fields)

    return tuple(quotas)


def _checked_refusals(value: Mapping[int, When]) -> Mapping[int, When]:
    if not isinstance(value, Mapping):
        raise TypeError(f"refusals must be a mapping of statuses, not {value!r}")

    refusals: dict[int, When] = {}
    for status, when in value.items():
        if when not in ("always", "told"):
            raise ValueError(f"refusals must say 'always' or 'told', not {when!r}")

        refusals[_status("refusals", status)] = when

    return MappingProxyType(refusals)


def _pair(name: str, value: Iterable[object], what: str) -> tuple[object, object]:
    """Return the two elements of something that is no text."""
    pair = _tuple(name, value, what)
    if len(pair) != 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"{name} must hold {what}, not {value!r}")

    return pair[0], pair[1]


def _checked_pauses(value: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    what = "pairs of a header and the seconds that its number is multiplied by"
    pauses: list[tuple[str, float]] = []
    for pair in _tuple("retry_after", value, what):
        header, scale = _pair("retry_after", pair, what)
        pauses.append((_header("retry_after", header), check_amount("retry_after", scale)))

    return tuple(pauses)


def _checked_everywhere(value: Iterable[object]) -> tuple[str, str]:
    header, told = _pair("everywhere", value, "a header and its value")
    if not isinstance(told, str):
        raise TypeError(f"everywhere must hold the value of a header, not {told!r}")

    return _header("everywhere", header), told.strip().lower()


#: The headers of the IETF's drafts up to the sixth.
_EARLY_DRAFTS = QuotaFields("ratelimit-remaining", "ratelimit-limit", ("ratelimit-reset",))


def _usual(prefix: str, *resets: str, window: float | None = None) -> QuotaFields:
    """Return the headers that most services send, which begin with a prefix."""
    names = tuple(prefix + reset for reset in resets)
    return QuotaFields(prefix + "remaining", prefix + "limit", names, window=window)


def _openai(measured: str, unit: str) -> QuotaFields:
    names = (f"x-ratelimit-{what}-{measured}" for what in ("remaining", "limit", "reset"))
    remaining, limit, reset = names
    return QuotaFields(remaining, limit, (reset,), unit, window=60, flow=True)


def _anthropic(measured: str, unit: str) -> QuotaFields:
    names = (f"anthropic-ratelimit-{measured}-{what}" for what in ("remaining", "limit", "reset"))
    remaining, limit, reset = names
    return QuotaFields(remaining, limit, (reset,), unit, window=60, flow=True)


_RETRY_AFTER_MS = (("retry-after-ms", 0.001), ("retry-after", 1.0))

#: The headers that most services send: GitLab, Slack, Spotify, Stripe, Cloudflare, Atlassian,
#: Zendesk, Hugging Face and others.
PLAIN: Final = Profile(
    "plain",
    (
        _usual("x-ratelimit-", "reset-after", "reset"),
        _usual("x-rate-limit-", "reset"),
        _EARLY_DRAFTS,
    ),
)

_KNOWN = (
    PLAIN,
    Profile(
        "github",
        (_usual("x-ratelimit-", "reset", window=3600),),
        refusals={429: "always", 403: "told", 503: "told"},
        first_pause=60,
        bucket="x-ratelimit-resource",
    ),
    Profile(
        "openai",
        (_openai("requests", "calls"), _openai("tokens", "tokens")),
        retry_after=_RETRY_AFTER_MS,
    ),
    Profile(
        "anthropic",
        (
            _anthropic("requests", "calls"),
            *(_anthropic(unit, unit) for unit in ("tokens", "input-tokens", "output-tokens")),
        ),
        refusals={429: "always", 529: "always", 503: "told"},
        retry_after=_RETRY_AFTER_MS,
    ),
    Profile(
        "discord",
        (_usual("x-ratelimit-", "reset-after"),),
        bucket="x-ratelimit-bucket",
        everywhere=("x-ratelimit-global", "true"),
    ),
    Profile(
        "shopify",
        (QuotaFields(None, None, used_of="x-shopify-shop-api-call-limit", per_second=2),),
    ),
    Profile("twitter", (_usual("x-rate-limit-", "reset", window=900),)),
    Profile("reddit", (QuotaFields("x-ratelimit-remaining", None, ("x-ratelimit-reset",)),)),
)

#: The profiles that come with this library, by name.
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {profile.name: profile for profile in _KNOWN}
)
