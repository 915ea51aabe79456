"""Whose request it is, whoever lies."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.integrations.asgi import client_address
from tests.integrations.asgi_tools import scope_of
from tests.properties import examples

pytestmark = pytest.mark.promise("H14")

PROXY = "10.0.0.1"
TRUSTED = ["10.0.0.0/8", "2001:db8:aaaa::/48", "unix"]


def whose(
    value: str | Iterable[str] = (),
    *,
    peer: str | None = PROXY,
    header: Any = "x-forwarded-for",
    trusted: Iterable[Any] = TRUSTED,
    **options: Any,
) -> str:
    values = [value] if isinstance(value, str) else value
    scope = scope_of(
        None if peer is None else (peer, 4711), headers=[(header, each) for each in values]
    )
    return client_address(trusted, header=header, **options)(scope)


class TestPeer:
    @pytest.mark.parametrize(
        ("peer", "key"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:c000:207", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", "unix"),
            (None, "unix"),
            # As a framework's test client has it.
            ("testclient", "unknown"),
            # As a server may have taken it from a header.
            (";;", "unknown"),
            ("192.0.2.7, 6.6.6.6", "unknown"),
            ("06.06.06.06", "unknown"),
            ("1" * 20_000, "unknown"),
        ],
    )
    def test_key(self, peer: str | None, key: str) -> None:
        assert whose(peer=peer, trusted=()) == key

    @pytest.mark.parametrize(
        ("prefix", "key"),
        [
            (48, "2001:db8:1::/48"),
            (1, "::/1"),
            (127, "2001:db8:1:2:3:4:5:6/127"),
            (128, "2001:db8:1:2:3:4:5:7"),
        ],
    )
    def test_prefix(self, prefix: int, key: str) -> None:
        assert whose(peer="2001:db8:1:2:3:4:5:7", ipv6_prefix=prefix) == key
        assert whose(peer="192.0.2.7", ipv6_prefix=prefix) == "192.0.2.7"

    def test_without_client_in_the_scope(self) -> None:
        assert client_address()({"type": "http", "headers": []}) == "unix"

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
    def test_nobody_else_is_believed(self, header: str) -> None:
        said = "for=6.6.6.6" if header == "forwarded" else "6.6.6.6"
        assert whose(said, peer="192.0.2.7", header=header) == "192.0.2.7"
        assert whose(said, peer="192.0.2.7", header=header, trusted=()) == "192.0.2.7"
        assert whose(said, peer="testclient", header=header) == "unknown"
        assert whose(said, peer=None, header=header, trusted=["10.0.0.0/8"]) == "unix"

    def test_the_other_header_is_not_read(self) -> None:
        scope = scope_of((PROXY, 1), headers=[("forwarded", "for=6.6.6.6"), ("host", "7.7.7.7")])
        assert client_address(TRUSTED)(scope) == PROXY
        assert client_address(TRUSTED, header="forwarded")(scope) == "6.6.6.6"


#: What stands in an entry, and the address that it names.
ENTRIES = [
    ("192.0.2.7", "192.0.2.7"),
    ("192.0.2.7:4711", "192.0.2.7"),
    ("[192.0.2.7]", None),
    ("192.0.2.07", None),
    ("192.0.2", None),
    ("192.0.2.7:", None),
    ("192.0.2.7:port", None),
    ("192.0.2.7:123456", None),
    ("192.0.2.7%eth0", None),
    ("2001:db8::7", "2001:db8::/64"),
    ("[2001:db8::7]", "2001:db8::/64"),
    ("[2001:db8::7]:4711", "2001:db8::/64"),
    ("[2001:db8::7]4711", None),
    ("[2001:db8::7", None),
    ("[fe80::1%eth0]:80", "fe80::/64"),
    ("fe80::1%25eth0", "fe80::/64"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
    ("unknown", None),
    ("_hidden", None),
    ("unix", None),
    ("localhost", None),
    ("1921681", None),
    ("\xb9\xb2.0.2.7", None),
    ("fe80::1%" + "x" * 121, None),
]


class TestForwardedFor:
    @pytest.mark.parametrize(("entry", "key"), [*ENTRIES, ("", None), (" ", None)])
    def test_entry(self, entry: str, key: str | None) -> None:
        assert whose(entry) == (key or PROXY)
        assert whose(f"6.6.6.6,\t{entry} ") == (key or PROXY)

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            # From the right, past those who are trusted.
            ("6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("6.6.6.6,192.0.2.7,2001:db8:aaaa::1,10.0.0.2:80", "192.0.2.7"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            # What is malformed counts as sent by who says so.
            ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, , 10.0.0.2", "10.0.0.2"),
            ("6.6.6.6, 192.0.2.7,", PROXY),
            (["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
            (["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            ([], PROXY),
        ],
    )
    def test_hops(self, value: str | list[str], key: str) -> None:
        assert whose(value) == key

    def test_a_proxy_on_a_socket_of_the_file_system(self) -> None:
        assert whose("192.0.2.7", peer=None) == "192.0.2.7"
        assert whose([], peer=None) == "unix"
        assert whose("unix, 10.0.0.3", peer=None) == "10.0.0.3"

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
    def test_32_hops(self, header: str) -> None:
        say = "for={}" if header == "forwarded" else "{}"
        hops = [say.format(f"10.0.1.{number}") for number in range(31)]
        first = say.format("192.0.2.7")
        assert whose(", ".join([first, *hops]), header=header) == "192.0.2.7"
        hops = [say.format("10.0.2.0"), *hops]
        assert whose(", ".join([first, *hops]), header=header) == "10.0.2.0"

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
    def test_4_kib(self, header: str) -> None:
        say = "for={}" if header == "forwarded" else "{}"
        entry, last = say.format("192.0.2.7"), say.format("10.0.0.2")
        for cut in range(len(entry)):
            right = entry[cut:] + "," + last.rjust(4095 - len(entry[cut:]))
            assert len(right) == 4096
            # Cut off in its midst, it might be another address.
            assert whose(f"6.6.6.6,{entry[:cut]}{right}", header=header) == "10.0.0.2"

        assert whose(f"{entry},{last.rjust(4095 - len(entry))}", header=header) == "192.0.2.7"
        assert whose("x" * 10**5 + f",{entry},{last}", header=header) == "192.0.2.7"

    def test_much_of_nothing(self) -> None:
        assert whose("," * 10**5) == PROXY
        assert whose("," * 10**5, header="forwarded") == PROXY
        assert whose('"' * 10**5, header="forwarded") == PROXY


class TestForwarded:
    @pytest.mark.parametrize(("entry", "key"), ENTRIES)
    def test_for(self, entry: str, key: str | None) -> None:
        for element in (f'for="{entry}"', f'by=_x;For="{entry}" ; proto=http', f'FOR="{entry}";'):
            assert whose(f"for=6.6.6.6, {element}", header="forwarded") == (key or PROXY)

    @pytest.mark.parametrize(
        ("element", "key"),
        [
            ("for=192.0.2.7", "192.0.2.7"),
            ("for=192.0.2.7;by=10.0.0.1", "192.0.2.7"),
            (r'for="192\.0.2.7"', "192.0.2.7"),
            # Not as it has to be, but seen.
            ("for=192.0.2.7:80", "192.0.2.7"),
            ('for="[2001:db8::7]:_port"', "2001:db8::/64"),
            ("for=", None),
            ('for=""', None),
            ("by=192.0.2.7", None),
            ("", None),
            ("192.0.2.7", None),
            ("for=192.0.2.7;for=192.0.2.8", None),
            ("for=192.0.2.7 by=10.0.0.1", None),
            ('for="192.0.2.7', None),
            ('for=192.0.2.7"', None),
            ("for = 192.0.2.7", None),
        ],
    )
    def test_element(self, element: str, key: str | None) -> None:
        assert whose(element, header="forwarded") == (key or PROXY)

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ("for=6.6.6.6, for=192.0.2.7, for=10.0.0.2", "192.0.2.7"),
            ("for=6.6.6.6, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3"),
            ('for=6.6.6.6" for=7.7.7.7, for=10.0.0.2', "10.0.0.2"),
            ('for=6.6.6.6;x="a, for=7.7.7.7", for=10.0.0.2', "6.6.6.6"),
            (["for=6.6.6.6", "for=192.0.2.7"], "192.0.2.7"),
        ],
    )
    def test_hops(self, value: str | list[str], key: str) -> None:
        assert whose(value, header="forwarded") == key

    @pytest.mark.parametrize(
        "lie", ['"', 'for="', 'x="a', 'x="\\', '\\"', 'x="\\"', 'x=";,', "for=6.6.6.6;", 'a"b"c"']
    )
    @pytest.mark.parametrize(
        "told", ['for="192.0.2.7:80";by="[2001:db8:aaaa::1]"', "for=192.0.2.7"]
    )
    def test_quotes_left_open_change_nothing(self, lie: str, told: str) -> None:
        assert whose(f"{lie}, {told}", header="forwarded") == "192.0.2.7"


#: Whatever can come in a header.
LIES = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60),
    st.lists(
        st.sampled_from(
            [
                "for=",
                '"',
                "\\",
                ",",
                ";",
                "6.6.6.6",
                "10.0.0.9",
                "[::1]",
                ":",
                "%",
                " ",
                "unix",
                "=",
            ]
        ),
        max_size=30,
    ).map("".join),
)


class TestLies:
    @examples(500)
    @given(LIES, st.sampled_from(["x-forwarded-for", "forwarded"]))
    def test_whoever_lies_gains_nothing(self, lie: str, header: str) -> None:
        """Right of the lie stands what the proxies have seen."""
        say = 'for="{}"' if header == "forwarded" else "{}"
        true = ", ".join(map(say.format, ["192.0.2.7", "10.0.0.3"]))
        assert whose(f"{lie}, {true}", header=header) == "192.0.2.7"
        assert whose([lie, true], header=header) == "192.0.2.7"
        assert whose(lie, header=header, peer="192.0.2.7") == "192.0.2.7"

    @examples(300)
    @given(LIES, st.sampled_from(["x-forwarded-for", "forwarded"]))
    def test_a_key_is_always_an_address(self, lie: str, header: str) -> None:
        key = whose(lie, header=header)
        assert key == PROXY or IPv6Network(key) if "/" in key else ip_address(key)

    @examples(200)
    @given(st.ip_addresses(), st.sampled_from(["x-forwarded-for", "forwarded"]))
    def test_however_an_address_is_written(self, address: Any, header: str) -> None:
        say = 'for="{}"' if header == "forwarded" else "{}"
        key = whose(peer=str(address), trusted=())
        texts = [str(address), f"{address}:80" if address.version == 4 else f"[{address}]:80"]
        if address.version == 4:
            texts += [f"::ffff:{address}", f"[::ffff:{address}]:1"]
        else:
            texts += [address.exploded, str(address).upper()]

        trusted = ["10.0.0.1/32"]
        assert {whose(say.format(text), header=header, trusted=trusted) for text in texts} == {key}


class TestTrusted:
    @pytest.mark.parametrize(
        ("trusted", "peer", "believed"),
        [
            ("10.0.0.1", "10.0.0.1", True),
            ("10.0.0.1", "10.0.0.2", False),
            ("10.0.0.1", "::ffff:10.0.0.1", True),
            ("::ffff:10.0.0.0/104", "10.3.2.1", True),
            ("::ffff:10.0.0.0/104", "11.3.2.1", False),
            ("2001:db8::/32", "2001:db8::1", True),
            ("2001:db8::/32", "2001:db9::1", False),
            ("::/0", "2001:db8::1", True),
            ("::/0", "10.0.0.1", False),
            (IPv4Network("10.0.0.0/8"), "10.0.0.1", True),
            (IPv4Address("10.0.0.1"), "10.0.0.1", True),
        ],
    )
    def test_networks(self, trusted: object, peer: str, believed: bool) -> None:
        key = whose("192.0.2.7", peer=peer, trusted=[trusted])
        assert (key == "192.0.2.7") is believed

    def test_an_iterator_is_read_once(self) -> None:
        assert whose("192.0.2.7", peer=None, trusted=iter(["10.0.0.1", "unix"])) == "192.0.2.7"

    @pytest.mark.parametrize("trusted", ["10.0.0.0/8", b"10.0.0.0/8"])
    def test_a_single_text_is_an_error(self, trusted: Any) -> None:
        with pytest.raises(TypeError, match=r"several networks, such as \[b?'10.0.0.0/8'\]"):
            client_address(trusted)

    @pytest.mark.parametrize("wrong", ["*", "10.0.0.1/8", "10.0.0.256", "", "proxy.example"])
    def test_what_is_no_network(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="trusted must be addresses, networks such as") as info:
            client_address([wrong])

        assert repr(wrong) in str(info.value)

    @pytest.mark.parametrize("wrong", [1, None, b"10.0.0.1"])
    def test_what_is_of_another_type(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="trusted must be"):
            client_address([wrong])

    def test_another_header(self) -> None:
        with pytest.raises(
            ValueError, match="header must be one of 'x-forwarded-for', 'forwarded'"
        ):
            client_address(header="X-Real-IP")  # type: ignore[arg-type]

    @pytest.mark.parametrize("prefix", [0, 129])
    def test_prefix_out_of_range(self, prefix: int) -> None:
        with pytest.raises(ValueError, match="ipv6_prefix"):
            client_address(ipv6_prefix=prefix)

    def test_memory_is_bounded(self) -> None:
        whose: Any = client_address()
        for number in range(5000):
            whose(scope_of((f"192.0.{number // 250}.{number % 250}", 1)))

        hops = next(
            cell.cell_contents
            for cell in whose.__closure__
            if hasattr(cell.cell_contents, "hop_of")
        )
        assert hops.hop_of.cache_info().currsize == 4096
