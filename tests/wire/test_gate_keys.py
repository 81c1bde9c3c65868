"""By what the gate counts peers that have no certificate."""

import pytest

from fedsec.wire.gate import _host


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:10.0.0.7:41000", "10.0.0.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:41000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:7", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:7", "fe80::/64"),
        ("unix:/run/socket", "unix"),
    ],
)
def test_strangers_are_counted_by_address_or_ipv6_network(peer: str, key: str) -> None:
    assert _host(peer) == key
