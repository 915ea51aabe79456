"""The options of a URL are checked at once, but for its files."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from anythrottle.stores.redis import RedisStore
from anythrottle.stores.redis_urls import redis_url

ALL = (
    "db=3&max_connections=5&timeout=1&max_idle_time=5&connect_timeout=0.5&stream_timeout=2.5"
    "&client_name=me&username=u&password=p&noevict=1&noreply=no&notouch=true"
)

TLS = (
    "ssl_check_hostname=false&ssl_cert_reqs=optional&ssl_ca_certs=a.pem&ssl_certfile=b.pem"
    "&ssl_keyfile=c.pem"
)


@pytest.mark.parametrize(
    "url", [f"redis://h?{ALL}", f"rediss://h/0?{ALL}&{TLS}", f"unix:///s?{ALL}"]
)
def test_options_that_are_good(url: str) -> None:
    assert redis_url(url) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@h/0?foo=1", "client_name, connect_timeout, db, .*, not 'foo'"),
        ("redis://:secret@h/0?foo", "not 'foo'"),
        ("rediss://:secret@h?ssl_ca_cert=a.pem", "ssl_ca_certs, .*not 'ssl_ca_cert'"),
        ("redis://:secret@h?ssl_ca_certs=a.pem", "begins with rediss:// to have 'ssl_ca_certs'"),
        ("unix://:secret@/s?ssl_cert_reqs=none", "begins with rediss:// to have 'ssl_cert_reqs'"),
        ("redis://:secret@h?db=x", "with a number for 'db'"),
        ("redis://:secret@h?db=", "with a number for 'db'"),
        ("redis://:secret@h?connect_timeout=soon", "with a number for 'connect_timeout'"),
        ("rediss://:secret@h?ssl_cert_reqs=no", "none, optional, required for 'ssl_cert_reqs'"),
        ("rediss://:secret@h?ssl_certfile=a.pem", "'ssl_keyfile', which may name the same file"),
        ("rediss://:secret@h?ssl_keyfile=a.pem", "'ssl_certfile' and 'ssl_keyfile'"),
    ],
)
def test_options_that_make_no_sense(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        RedisStore(url)

    assert str(raised.value).startswith("server must be a URL")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_files_that_cannot_be_read(tmp_path: Path, backend: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate", encoding="utf-8")
    for options, said in (
        ("ssl_ca_certs=/nowhere.pem", "ssl_ca_certs=/nowhere.pem: .*No such file"),
        (f"ssl_ca_certs={bad}", f"in PEM form: ssl_ca_certs={bad}: "),
        (
            f"ssl_certfile={bad}&ssl_keyfile=/nowhere.key",
            f"ssl_certfile={bad}, ssl_keyfile=/nowhere.key: ",
        ),
    ):
        store = RedisStore(f"rediss://:secret@h?{options}")

        async def main(store: RedisStore = store, said: str = said) -> None:
            with pytest.raises(ValueError, match=said) as raised:
                async with store:
                    pass

            assert isinstance(raised.value.__cause__, OSError)
            assert "secret" not in str(raised.value)

        anyio.run(main, backend=backend)
