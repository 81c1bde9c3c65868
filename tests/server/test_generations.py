"""How an issuing authority takes the place of another: by the files and the time, crashes included."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from fedsec.errors import ConfigError, IdentityError, StateError
from fedsec.identity.certificates import load_certificates
from fedsec.identity.leaves import Lifetimes, make_key, make_request
from fedsec.identity.names import Kind, Role
from fedsec.identity.principals import principal_of
from fedsec_server import change_issuers as change_module
from fedsec_server.authorities import Authorities
from fedsec_server.ca_keeper import AuthorityKeeper
from fedsec_server.change_issuers import change_issuers, check_kinds
from fedsec_server.generations import load_authorities, load_generations, servers_anchors
from fedsec_server.init import create_root
from fedsec_server.journal import Journal
from tests.server.coordinatorrig import PASSPHRASE, Place, make_place
from tests.server.test_journal import Recorded
from tests.wire.gated import until

LIVES = Lifetimes(node=timedelta(hours=8), person=timedelta(hours=12))
NODES_END, SERVERS_END = timedelta(hours=8.8), timedelta(hours=13.2)
SECOND = timedelta(seconds=1)
ROLE = {Kind.PERSON: Role.ADMIN}
NAMES = {Kind.SERVER: "servers", Kind.NODE: "nodes", Kind.PERSON: "people"}
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)  # the root was made before


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def change(
    place: Place, *names: str, now: datetime = NOW, at_once: bool = False, root: Path | None = None
) -> None:
    change_issuers(
        place.layout,
        root or place.layout.directory.parent / "root",
        PASSPHRASE,
        kinds=check_kinds(names),
        lifetimes=LIVES,
        now=now,
        at_once=at_once,
    )


def at(place: Place, later: timedelta = timedelta(0)) -> Authorities:
    return load_authorities(place.layout, LIVES, now=NOW + later)


def fingerprints(authorities: Authorities, kind: Kind) -> list[str]:
    """Of every CA that counts; the one that issues comes first."""
    found = [
        cert.fingerprint(SHA256()).hex() for cert in load_certificates(authorities.anchors(kind))
    ]
    assert found[0] == authorities.of(kind).fingerprint
    return found


def test_without_a_change_one_ca_counts_for_each_kind(place: Place) -> None:
    now = at(place)
    assert (now.beside, now.ends) == ({}, {})
    assert servers_anchors(place.layout) == now.anchors(Kind.SERVER)


def test_nodes_and_people_move_at_once_and_the_servers_ca_waits_until_all_know_it(
    place: Place,
) -> None:
    before = at(place)
    change(place)
    during = at(place)
    new = {kind: fingerprints(during, kind) for kind in Kind}
    for kind in (Kind.NODE, Kind.PERSON):
        assert new[kind][1] == before.of(kind).fingerprint
    assert new[Kind.SERVER][0] == before.servers.fingerprint
    assert during.ends[Kind.NODE] - NOW == NODES_END
    assert during.ends[Kind.SERVER] - NOW == during.ends[Kind.PERSON] - NOW == SERVERS_END
    assert servers_anchors(place.layout) == during.anchors(Kind.SERVER)
    late = at(place, NODES_END)
    assert fingerprints(late, Kind.NODE) == new[Kind.NODE][:1]
    assert fingerprints(late, Kind.SERVER) == new[Kind.SERVER]
    over = at(place, SERVERS_END)
    assert fingerprints(over, Kind.SERVER) == new[Kind.SERVER][1:]
    assert over.ends == {}


def test_the_former_keys_of_nodes_and_people_are_gone_at_once(place: Place) -> None:
    change(place)
    kept = {path.name for path in place.layout.authorities.glob("*.former.*")}
    assert kept == {
        "servers.former.cert.pem",
        "servers.former.key.pem",
        "nodes.former.cert.pem",
        "people.former.cert.pem",
    }
    assert not list(place.layout.authorities.glob("*.next.*"))


def test_every_certificate_of_before_outlives_the_overlap_of_its_ca(place: Place) -> None:
    """The last leaf of the former nodes' CA ends before that CA does not count any more."""
    issued = at(place).issue(
        Kind.NODE, make_request(make_key()), name="0" * 32, lifetimes=LIVES, now=NOW
    )
    change(place, "nodes")
    end = at(place).ends[Kind.NODE].timestamp()
    assert issued.record.not_after < end
    assert end - issued.record.not_after == pytest.approx(0.1 * 8 * 3600, abs=61)


def test_at_once_leaves_nothing_of_the_former_one(place: Place) -> None:
    before = at(place)
    change(place, "nodes", "servers", at_once=True)
    after = at(place)
    for kind in (Kind.NODE, Kind.SERVER):
        (only,) = fingerprints(after, kind)
        assert only != before.of(kind).fingerprint
    assert fingerprints(after, Kind.PERSON) == fingerprints(before, Kind.PERSON)
    assert not list(place.layout.authorities.glob("*.former.*"))


def test_at_once_ends_a_planned_change_too(place: Place) -> None:
    change(place)
    change(place, at_once=True)
    assert at(place).beside == {}


def test_a_second_change_waits_for_the_first(place: Place) -> None:
    change(place, "nodes")
    with pytest.raises(StateError, match="CA for nodes is being replaced already, until"):
        change(place)
    change(place, "people")  # another one's
    change(place, "nodes", now=NOW + NODES_END + SECOND)
    assert len(fingerprints(at(place, NODES_END + 2 * SECOND), Kind.NODE)) == 2


def test_an_expired_ca_can_still_be_replaced(place: Place) -> None:
    late = timedelta(days=366)
    with pytest.raises(IdentityError, match=r"expired: .*`fedsec server renew-ca` makes a new one"):
        at(place, late)
    change(place, now=NOW + late)
    for kind in Kind:
        assert len(fingerprints(at(place, late), kind)) == 1  # the former one is over


def test_another_root_is_refused_and_changes_nothing(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create_root(other, federation="fed.example", passphrase=PASSPHRASE, now=NOW)
    before = {path.name: path.read_bytes() for path in place.layout.authorities.iterdir()}
    with pytest.raises(IdentityError, match=r"wrong-fingerprint: the root in .*other is"):
        change(place, root=other)
    with pytest.raises(ConfigError, match="must lie apart"):
        change(place, root=place.layout.directory / "root")
    assert {p.name: p.read_bytes() for p in place.layout.authorities.iterdir()} == before


def test_names_of_cas_are_checked() -> None:
    assert set(check_kinds([])) == set(Kind)
    assert check_kinds(["nodes"]) == [Kind.NODE]
    with pytest.raises(ConfigError, match="CA 'node' must be one of servers, nodes, people"):
        check_kinds(["node"])


class Crash(BaseException):
    """What no handler catches, as a power cut."""


def crash_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Lets the process die at the write that follows the first so many, renames included."""
    left = [writes]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def write(*args: object, **kwargs: object) -> object:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*args, **kwargs)

        return write

    for name in ("write_private", "write_public"):
        monkeypatch.setattr(change_module, name, counted(getattr(change_module, name)))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("at_once", [False, True])
def test_a_crash_at_any_write_leaves_the_former_or_the_new_one(
    place: Place, kind: Kind, *, at_once: bool
) -> None:
    before = at(place).of(kind).fingerprint
    seen, step = set(), 0
    while True:
        with pytest.MonkeyPatch.context() as patch:
            crash_after(patch, step)
            try:
                change(place, NAMES[kind], at_once=at_once)
                crashed = False
            except Crash:
                crashed = True
        newest = load_generations(place.layout, now=NOW).of[kind]  # what a restart finds
        newest_print = newest.current.fingerprint
        seen.add(newest_print != before)
        assert newest.former is None or newest_print != before
        issued = at(place).issue(
            kind,
            make_request(make_key()),
            name="0" * 32,
            role=ROLE.get(kind),
            hosts=["localhost"] if kind is Kind.SERVER else [],
            lifetimes=LIVES,
            now=NOW,
        )
        principal_of(issued.chain_pem, issuer=at(place).of(kind).certificate, kind=kind)
        if not crashed:
            break
        if newest_print != before:  # it went through, the next step needs the start again
            break
        step += 1
    assert seen == {False, True}
    assert step >= 2


def keeper_at(
    place: Place, offset: timedelta, applied: list[int]
) -> tuple[AuthorityKeeper, Authorities]:
    now = NOW + offset
    generations = load_generations(place.layout, now=now)
    authorities = generations.at(now, LIVES)
    keeper = AuthorityKeeper(
        place.layout,
        generations,
        authorities,
        lifetimes=LIVES,
        apply=lambda: applied.append(1),
        journal=Journal(Recorded()),  # type: ignore[arg-type]
        clock=lambda: now,
    )
    return keeper, authorities


@pytest.mark.parametrize(("days", "warned"), [(304, False), (306, True), (364, True)])
def test_a_ca_that_ends_soon_is_told_of_once_a_day(
    place: Place, caplog: pytest.LogCaptureFixture, days: int, *, warned: bool
) -> None:
    async def main() -> None:
        keeper, _ = keeper_at(place, timedelta(days=days), [])
        keeper.settle()
        keeper.settle()

    asyncio.run(main())
    lines = [line for line in caplog.messages if "replace it with `fedsec server renew-ca`" in line]
    assert len(lines) == (3 if warned else 0)


def test_a_coordinator_that_was_down_over_the_end_forgets_the_former_ones(place: Place) -> None:
    change(place)
    applied: list[int] = []

    async def main() -> Authorities:
        keeper, authorities = keeper_at(place, SERVERS_END, applied)
        keeper.settle()
        return authorities

    after = asyncio.run(main())
    assert not list(place.layout.authorities.glob("*.former.*"))
    assert after.servers.fingerprint == at(place).servers.fingerprint
    assert applied == []  # it had started with the new ones


def test_what_could_not_be_applied_is_tried_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    applied: list[int] = []

    def apply() -> None:
        applied.append(1)
        if len(applied) == 1:
            raise IdentityError("expired", "a test")

    async def main() -> None:
        generations = load_generations(place.layout, now=NOW)
        keeper = AuthorityKeeper(
            place.layout,
            generations,
            generations.at(NOW, LIVES),
            lifetimes=LIVES,
            apply=apply,
            journal=Journal(Recorded()),  # type: ignore[arg-type]
            clock=lambda: NOW,
        )
        change(place, "nodes")
        with pytest.raises(IdentityError):
            await keeper.reload()
        task = asyncio.create_task(keeper.keep())
        await until(lambda: len(applied) == 2)
        task.cancel()

    asyncio.run(main())
    assert applied == [1, 1]


def test_files_of_a_change_that_has_just_begun_are_not_forgotten(place: Place) -> None:
    change(place, "nodes")

    async def main() -> None:
        keeper, _ = keeper_at(place, NODES_END, [])
        change(place, "nodes", now=NOW + NODES_END + SECOND)  # the next one, by a command
        keeper.settle()

    asyncio.run(main())
    assert place.layout.issuer_certificate(Kind.NODE, ".former").exists()
