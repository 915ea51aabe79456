"""URLs of servers: what may be in them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, parse_qs, urlsplit

#: The schemes of URLs, and what coredis calls them.
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}

_CERT_REQS = ("none", "optional", "required")

#: The options of URLs that name files.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

#: The options of URLs, and what checks a value: coredis ignores others, and fails late. Some are
#: of no use here, but URLs are shared with other programs.
_OPTIONS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("db", "max_connections", "max_idle_time", "timeout"), int),
    **dict.fromkeys(("connect_timeout", "stream_timeout"), float),
    **dict.fromkeys(("client_name", "username", "password"), str),
    **dict.fromkeys(("noevict", "noreply", "notouch", "ssl_check_hostname"), str),
    **dict.fromkeys(_FILES, str),
    "ssl_cert_reqs": _CERT_REQS.index,
}


def redis_url(url: str) -> str:
    """
    Return a URL as coredis wants it.

    :raises ValueError: if it makes no sense; it is not quoted, because it may hold a password

    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise ValueError(f"server must be a URL that begins with one of {', '.join(_SCHEMES)}://")

    url = f"{_SCHEMES[scheme]}://{rest}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("server must be a URL with a port from 0 to 65535") from None

    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("server must be a URL with a path: unix:///run/redis.sock")
    elif not parts.hostname:
        raise ValueError(f"server must be a URL with a host: {scheme}://localhost:6379")
    elif parts.path not in ("", "/") and not parts.path[1:].isdecimal():
        raise ValueError(f"server must be a URL with a number for a path, not {parts.path!r}")

    options = _checked_options(parts)
    if parts.scheme == "rediss" and not options & {"ssl_check_hostname", "ssl_cert_reqs"}:
        # By default coredis takes any valid certificate, whatever host it is for.
        url += ("&" if parts.query else "?") + "ssl_check_hostname=true"

    return url


def _checked_options(parts: SplitResult) -> set[str]:
    """Return the names of a URL's options, or raise if one is not known or makes no sense."""
    options = parse_qs(parts.query, keep_blank_values=True)
    for name, values in options.items():
        if name not in _OPTIONS:
            raise ValueError(
                f"server must be a URL with no other options than {', '.join(sorted(_OPTIONS))}, "
                f"not {name!r}"
            )

        try:
            _OPTIONS[name](values[0])
        except ValueError:
            wanted = f"one of {', '.join(_CERT_REQS)}" if "ssl" in name else "a number"
            raise ValueError(f"server must be a URL with {wanted} for {name!r}") from None

        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise ValueError(f"server must be a URL that begins with rediss:// to have {name!r}")

    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        raise ValueError(
            "server must be a URL with 'ssl_certfile' and 'ssl_keyfile', which may name the same "
            "file, or with neither"
        )

    return set(options)


def unreadable(url: str, error: OSError) -> ValueError:
    """Return an error that names the files of a URL, one of which cannot be read."""
    options = parse_qs(urlsplit(url).query)
    files = [f"{name}={options[name][0]}" for name in _FILES if name in options]
    return ValueError(
        f"server must be a URL whose files can be read, and are in PEM form: {', '.join(files)}: "
        f"{error}"
    )
