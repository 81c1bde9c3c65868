"""An invite survives a mail; damage to it is told apart from a wrong one; it keeps its secret."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsec.errors import ConfigError
from fedsec.identity.invites import Invite, make_token, split_address, token_hash

TOKEN = bytes(range(32))
PIN = bytes(range(100, 132))
INVITE = Invite("fed.example:8443", TOKEN, PIN)
LINE = INVITE.encode()

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
hosts = st.one_of(
    st.lists(labels, min_size=1, max_size=5).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
)
invites = st.builds(
    lambda host, port, token, pin: Invite(f"{host}:{port}", token, pin),
    hosts,
    st.integers(1, 65535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)


@given(invites)
def test_what_is_written_is_read(invite: Invite) -> None:
    line = invite.encode()
    assert Invite.decode(line) == invite
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line


def test_the_form() -> None:
    prefix, _, body = LINE.partition(":")
    assert prefix == "fedsec-invite-1"
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    content = TOKEN + PIN + bytes([16]) + b"fed.example:8443"
    check = hashlib.sha256(b"fedsec-v1/invite-checksum\x00" + content).digest()[:4]
    assert raw == content + check


def test_white_space_of_a_mail_program_is_skipped() -> None:
    wrapped = "  " + "\r\n  ".join(LINE[at : at + 40] for at in range(0, len(LINE), 40)) + "\n"
    assert Invite.decode(wrapped) == INVITE


@given(data=st.data(), invite=invites)
def test_a_mistyped_character_is_said_to_be_one(data: st.DataObject, invite: Invite) -> None:
    line = invite.encode()
    start = line.index(":") + 1
    place = data.draw(st.integers(start, len(line) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_!.:/"
    character = data.draw(st.sampled_from(alphabet).filter(lambda c: c != line[place]))
    # the byte that holds the address's length reads like an end that is missing
    with pytest.raises(ConfigError, match=r"the invite is (mistyped|cut short)"):
        Invite.decode(line[:place] + character + line[place + 1 :])


@given(data=st.data(), invite=invites)
def test_a_lost_end_is_said_to_be_one(data: st.DataObject, invite: Invite) -> None:
    line = invite.encode()
    end = data.draw(st.integers(line.index(":") + 1, len(line) - 1))
    with pytest.raises(ConfigError, match="the invite is cut short; copy the whole line again"):
        Invite.decode(line[:end])


@given(place=st.integers(16, len(LINE) - 2))
def test_two_characters_swapped(place: int) -> None:
    swapped = LINE[:place] + LINE[place + 1] + LINE[place] + LINE[place + 2 :]
    if swapped != LINE:
        with pytest.raises(ConfigError, match=r"the invite is (mistyped|cut short)"):
            Invite.decode(swapped)


def test_characters_too_many() -> None:
    for line in (LINE + "A", LINE + "AAAA", LINE + LINE, LINE + "=", LINE + "==", LINE.upper()):
        with pytest.raises(ConfigError, match=r"mistyped|is no invite"):
            Invite.decode(line)


def test_bits_left_over_must_be_zero() -> None:
    """Else one invite would have several spellings."""
    assert len(LINE.partition(":")[2]) % 4 == 2  # so 4 bits are left over
    assert LINE[-1] in "AQgw"
    with pytest.raises(ConfigError, match="mistyped"):
        Invite.decode(LINE[:-1] + chr(ord(LINE[-1]) + 1))


@pytest.mark.parametrize("version", ["0", "2", "17"])
def test_another_version(version: str) -> None:
    line = LINE.replace("-1:", f"-{version}:", 1)
    with pytest.raises(ConfigError, match=f"of version {version}, this program reads version 1"):
        Invite.decode(line)


@pytest.mark.parametrize(
    "text",
    ["", "hello", "fedsec-invite-", "fedsec-invite-1", "fedsec-invite-x:AAAA", "x" * 100_000],
)
def test_what_is_no_invite(text: str) -> None:
    with pytest.raises(ConfigError, match="this is no invite"):
        Invite.decode(text)


@given(st.text(max_size=400))
def test_any_text_is_refused_in_a_sentence(text: str) -> None:
    for line in (text, "fedsec-invite-1:" + text):
        with pytest.raises(ConfigError, match="invite"):
            Invite.decode(line)


def test_a_sound_checksum_over_a_bad_address_is_refused() -> None:
    address = b"fed.example"
    content = TOKEN + PIN + bytes([len(address)]) + address
    check = hashlib.sha256(b"fedsec-v1/invite-checksum\x00" + content).digest()[:4]
    line = "fedsec-invite-1:" + base64.urlsafe_b64encode(content + check).decode().rstrip("=")
    with pytest.raises(ConfigError, match="must be host:port"):
        Invite.decode(line)


def test_no_sentence_and_no_repr_holds_the_token() -> None:
    secret = LINE.partition(":")[2][:20]
    shown = [repr(INVITE), str(INVITE)]
    for damaged in (LINE[:-1], LINE + "A", LINE.replace("-1:", "-2:"), "x" + LINE):
        with pytest.raises(ConfigError) as caught:
            Invite.decode(damaged)
        shown.append(str(caught.value))
    for text in shown:
        assert secret not in text
        assert TOKEN.hex() not in text
        assert repr(TOKEN)[2:20] not in text


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:1", ("localhost", 1)),
        ("fed.example:65535", ("fed.example", 65535)),
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        ("[::1]:8443", ("::1", 8443)),
    ],
)
def test_good_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":8443",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:08443",
        "localhost:+1",
        "localhost:\u0661",
        "localhost:8443 ",
        "::1:8443",
        "[localhost]:8443",
        "[::1]8443",
        "https://fed.example:8443",
        "a@b:1",
        "a\n:1",
        "a" * 300 + ":1",
    ],
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        split_address(address)
    with pytest.raises(ConfigError, match="must be"):
        Invite(address, TOKEN, PIN)


def test_fields_of_a_wrong_length() -> None:
    with pytest.raises(ConfigError, match="token must have 32 bytes"):
        Invite("a:1", TOKEN[:-1], PIN)
    with pytest.raises(ConfigError, match="servers_ca_fingerprint must have 32 bytes, got 33"):
        Invite("a:1", TOKEN, PIN + b"x")


def test_tokens() -> None:
    first, second = make_token(), make_token()
    assert first != second
    assert len(first) == 32
    assert token_hash(TOKEN) == hashlib.sha256(TOKEN).digest()
