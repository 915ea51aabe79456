"""Which client a request comes from: addresses, and what proxies say of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Final, Literal, NamedTuple, TypeAlias, final, get_args

from .._policies.checks import check_count
from ._asgi import Scope

Address: TypeAlias = IPv4Address | IPv6Address

Network: TypeAlias = IPv4Network | IPv6Network

#: The key of all clients that come without an address, by a socket of the file system.
UNIX: Final = "unix"

#: The key of all clients whose address is none.
UNKNOWN: Final = "unknown"

#: How many bits an address of IPv6 has.
_IPV6_BITS = 128

#: How many entries of a header are looked at, and how many bytes, from the right.
_MOST_HOPS, _MOST_BYTES = 32, 4096

#: How long an address may be, with port and zone.
_LONGEST = 128

#: For how many addresses the hop is remembered.
_REMEMBERED = 4096

#: An element of ``Forwarded``, read backwards, because only what stands on the right was written by
#: a proxy that is trusted: quotes that others have left open on the left change nothing in it.
_ELEMENT_BACKWARDS = re.compile(r'(?:"(?:.\\|[^"\\])*+"|[^",])*+')

#: A pair of an element, with what separates it from the next.
_PAIR = re.compile(r"""\s*([\w!#$%&'*+.^`|~-]+)=("(?:[^"\\]|\\.)*+"|[^\s";,]+)\s*(?:;|$)""")

#: The port of an address: of ``Forwarded``, one that is hidden too.
_PORT = re.compile(r":(?:[0-9]{1,5}|_[\w.-]+)", re.ASCII)


class Hop(NamedTuple):
    """A sender of a request: its key, and whether what it says of others is believed."""

    key: str
    trusted: bool


@final
class Hops:
    """
    The senders of requests, by their addresses.

    :param trusted: the networks, or ``"unix"``, that are believed
    :param ipv6_prefix: how many bits of an address of IPv6 tell clients apart
    """

    __slots__ = ("_networks", "_prefix", "hop_of", "unix")

    def __init__(self, trusted: Iterable[object], ipv6_prefix: int) -> None:
        if isinstance(trusted, (str, bytes)):
            raise TypeError(f"trusted must be several networks, such as [{trusted!r}], not a text")

        prefix = check_count("ipv6_prefix", ipv6_prefix)
        if prefix > _IPV6_BITS:
            raise ValueError(f"ipv6_prefix must be at most 128, not {prefix}")

        believed = tuple(trusted)
        self._networks = tuple([_network_of(each) for each in believed if each != UNIX])
        self._prefix = prefix
        self.unix = Hop(UNIX, UNIX in believed)
        #: Returns the hop of an address, given as a text; ``None`` if it is none.
        self.hop_of = lru_cache(maxsize=_REMEMBERED)(self._hop_of)

    def _hop_of(self, text: str) -> Hop | None:
        address = address_of(text)
        if address is None:
            return None

        key = str(address)
        if isinstance(address, IPv6Address) and self._prefix < _IPV6_BITS:
            key = str(IPv6Network((address, self._prefix), strict=False))

        return Hop(key, any(address in network for network in self._networks))


def client_address(
    trusted: Iterable[str | Network] = (),
    *,
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for",
    ipv6_prefix: int = 64,
) -> Callable[[Scope], str]:
    """
    Return a function that returns the address of a request's sender: a key for each client.

    >>> whose = client_address(["10.0.0.0/8"])
    >>> whose({"client": ("192.0.2.7", 4711), "headers": []})
    '192.0.2.7'
    >>> forwarded = [(b"x-forwarded-for", b"6.6.6.6, 192.0.2.7")]
    >>> whose({"client": ("10.0.0.1", 80), "headers": forwarded})
    '192.0.2.7'
    >>> whose({"client": ("192.0.2.8", 4711), "headers": forwarded})
    '192.0.2.8'

    The sender is the address that the server says has connected, unless that is in ``trusted``:
    then it is the one that the trusted proxies name, the nearest first. What others have written
    into the header stands left of that, and is not read, so a client that lies about its address
    gains nothing. What is malformed, or names no address, counts as sent by the proxy that says so;
    at most 32 entries and 4 KiB are looked at.

    Ports and zones are dropped, and an address of IPv4 in one of IPv6 is taken for what it is. A
    network of IPv6 counts as one client, because each client has that many addresses. All clients
    that come without an address, by a socket of the file system, have the key ``"unix"``; those of
    whom the server says what is no address, ``"unknown"``.

    :param trusted: the proxies whose header is believed: addresses and networks, such as
        ``"10.0.0.0/8"``, of your own proxies and no others; ``"unix"`` for those that come by a
        socket of the file system
    :param header: where they say which client a request comes from
    :param ipv6_prefix: how many bits of an address of IPv6 tell clients apart, 1 to 128
    :raises TypeError: if ``trusted`` is a single text, or ``ipv6_prefix`` no int
    :raises ValueError: if a network is none, ``header`` is another one, or ``ipv6_prefix`` is out
        of its range

    """
    if header not in _READERS:
        raise ValueError(f"header must be one of {', '.join(map(repr, _READERS))}, not {header!r}")

    hops = Hops(trusted, ipv6_prefix)
    read, name = _READERS[header], header.encode("ascii")

    def whose(scope: Scope) -> str:
        client = scope.get("client")
        host = client[0] if client else None
        if host:
            peer = hops.hop_of(host) if len(host) <= _LONGEST else None
            if peer is None:
                # Perhaps a server has taken it from a header: a client could make up such keys.
                return UNKNOWN
        else:
            peer = hops.unix

        if not peer.trusted:
            return peer.key

        return _sender(peer, read(_value_of(scope, name)), hops)

    return whose


def _sender(peer: Hop, entries: Iterator[str], hops: Hops) -> str:
    """Return the key of the first hop that is not trusted, or else of the last that is."""
    for _, entry in zip(range(_MOST_HOPS), entries, strict=False):
        hop = hops.hop_of(entry) if 0 < len(entry) <= _LONGEST else None
        if hop is None:
            break

        peer = hop
        if not hop.trusted:
            break

    return peer.key


def _value_of(scope: Scope, name: bytes) -> str:
    """Return the right end of a header's values; what is cut off begins with nothing readable."""
    value = b",".join([value for key, value in scope.get("headers", ()) if key == name])
    text = value[-_MOST_BYTES:].decode("latin-1")
    # An entry that is cut in two must not be taken for another one.
    return text if len(value) <= _MOST_BYTES else f"?{text}"


def _x_forwarded_for(value: str) -> Iterator[str]:
    """Return the entries of ``X-Forwarded-For``, the last one first."""
    return (entry.strip() for entry in reversed(value.rsplit(",", _MOST_HOPS)))


def _forwarded(value: str) -> Iterator[str]:
    """
    Yield what each element of ``Forwarded`` is for, the last one first; nothing if malformed.

    The elements are those of :rfc:`7239`.
    """
    backwards = value[::-1]
    start = 0
    while start <= len(backwards):
        found = _ELEMENT_BACKWARDS.match(backwards, start)
        assert found is not None
        end = found.end()
        if end < len(backwards) and backwards[end] != ",":
            # A quote that is not closed.
            break

        yield _for_of(found.group()[::-1].strip())
        start = end + 1


def _for_of(element: str) -> str:
    """Return what an element of ``Forwarded`` says it is for; nothing if it doesn't say, once."""
    told: list[str] = []
    end = 0
    while end < len(element):
        pair = _PAIR.match(element, end)
        if pair is None:
            return ""

        name, value = pair.groups()
        if name.lower() == "for":
            told.append(re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value)

        end = pair.end()

    return told[0] if len(told) == 1 else ""


_READERS: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    "x-forwarded-for": _x_forwarded_for,
    "forwarded": _forwarded,
}


def address_of(text: str) -> Address | None:
    """Return an address, written with or without port and zone; ``None`` if it is none."""
    bracket, colons = text[:1] == "[", text.count(":") > 1
    port = ""
    if bracket:
        text, closed, port = text[1:].partition("]")
        if not closed:
            return None
    elif not colons:
        text, colon, port = text.partition(":")
        port = colon + port

    if port and not _PORT.fullmatch(port):
        return None

    try:
        if bracket or colons:
            address = IPv6Address(text.partition("%")[0])
            return address.ipv4_mapped or address

        return IPv4Address(text)
    except ValueError:
        return None


def _network_of(network: object) -> Network:
    """
    Return the network that a text, a network or an address stands for.

    :raises TypeError: if it is of another type
    :raises ValueError: if it is none
    """
    if not isinstance(network, (str, *get_args(Address), *get_args(Network))):
        raise TypeError(f"trusted must be addresses, networks, or 'unix', not {network!r}")

    try:
        found = ip_network(str(network))
    except ValueError as error:
        raise ValueError(
            f"trusted must be addresses, networks such as '10.0.0.0/8', or 'unix', not "
            f"{network!r}: {error}"
        ) from None

    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    if mapped is not None and found.prefixlen >= 96:  # noqa: PLR2004
        return IPv4Network((mapped, found.prefixlen - 96))

    return found
