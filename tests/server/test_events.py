"""The record of what happened: durable, ordered, followed without polling, safe to print."""

import asyncio
import io
import json
import logging
import math
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsec.identity.names import Kind, Principal, Role
from fedsec.wire.call import Refusal
from fedsec.wire.rates import RateLimiter
from fedsec_server.events import Recorder, run_subject
from fedsec_server.logs import log_to, stop_logging
from fedsec_server.state.store import Store
from fedsec_server.state.values import Event
from tests.wire.gated import run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NASTY = "x\n2026-01-01 fake line\r\x1b[2J\x00\u202e\u2028"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, clock=lambda: 17.0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    log_to(tmp_path / "server.log")
    yield tmp_path / "server.log"
    stop_logging()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


# --- recording ---------------------------------------------------------------------------------


def test_an_event_is_kept_and_returned(recorder: Recorder, store: Store) -> None:
    event = recorder.record("node-enrolled", "spiffe://f/node/1", {"name": "a", "pinned": True})
    assert store.events() == [event]
    assert (event.sequence, event.at, event.run_id) == (1, 17.0, None)
    assert event.detail == {"name": "a", "pinned": True}
    assert recorder.record("run-started", run_subject(7), run_id=7).subject == "run 7"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (0.25, 0.25),
        ((1, "a", None), [1, "a", None]),
        ({"a": {"b": [1]}}, {"a": {"b": [1]}}),
        ({1: 2}, {"1": 2}),
        (b"raw", "b'raw'"),
        ("y" * 3000, "y" * 2000 + "..."),
        (1 << 63, 1 << 63),
        (1 << 64, "an integer of 65 bits"),
        ([[[[[[[["deep"]]]]]]]], [[[[["..."]]]]]),
    ],
)
def test_what_json_does_not_know_becomes_text(
    recorder: Recorder, store: Store, given: object, kept: object
) -> None:
    recorder.record("kind", "subject", {"value": given})
    assert store.events()[0].detail["value"] == kept


def test_an_event_has_a_bounded_size(recorder: Recorder, store: Store) -> None:
    nested: dict[str, object] = {}
    inner = nested
    for _ in range(500):
        inner["deeper"] = {}
        inner = inner["deeper"]  # type: ignore[assignment]
    huge = {"list": list(range(10**6)), "nested": nested, "many": ["z" * 5000] * 5000}
    event = recorder.record("k" * 1000, "s" * 1000, huge)
    assert len(event.kind) <= 64
    assert len(event.subject) <= 400
    kept = dict(store.events()[0].detail)
    assert len(json.dumps(kept)) <= 400_000
    assert kept["list"][:3] == [0, 1, 2]  # type: ignore[index]
    assert kept["..."] == "..."  # it says that something is missing


def test_order_is_the_same_in_the_database_and_in_the_log(
    recorder: Recorder, store: Store, log: Path
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: recorder.record("k", "s", {"n": n}), range(100)))
    kept = [event.detail["n"] for event in store.events()]
    logged = [line["detail"]["n"] for line in lines(log) if "detail" in line]  # type: ignore[index]
    assert sorted(kept) == list(range(100))  # type: ignore[type-var]
    assert kept == logged


# --- the log -----------------------------------------------------------------------------------


def test_a_line_cannot_be_forged(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder, tmp_path: Path
) -> None:
    stderr, log = io.StringIO(), tmp_path / "server.log"
    monkeypatch.setattr("sys.stderr", stderr)
    log_to(log)
    recorder.record(NASTY, NASTY, {NASTY: NASTY})
    logging.getLogger("other").warning("said %s", NASTY)
    stop_logging()
    raw = log.read_bytes()
    assert raw.count(b"\n") == 2
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw)
    assert lines(log)[0]["detail"] == {NASTY: NASTY}  # nothing is lost, only written harmlessly
    shown = stderr.getvalue()
    assert shown.count("\n") == 2
    assert not set("\x1b\r\x00\u202e\u2028") & set(shown)


def test_an_event_is_a_line_with_its_fields(recorder: Recorder, log: Path) -> None:
    recorder.record("rpc-refused", "peer 192.0.2.7", {"code": "revoked"})
    (line,) = lines(log)
    assert line["kind"] == "rpc-refused"
    assert line["subject"] == "peer 192.0.2.7"
    assert line["detail"] == {"code": "revoked"}
    assert line["level"] == "warning"
    assert line["message"] == "rpc-refused: peer 192.0.2.7 (code=revoked)"
    assert str(line["at"]).endswith("+00:00")


def test_a_traceback_stays_inside_its_line(log: Path) -> None:
    try:
        int(NASTY)
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = lines(log)
    assert "ValueError" in str(line["traceback"])
    assert log.read_bytes().count(b"\n") == 1


def test_the_log_is_private_and_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    before = list(logging.getLogger().handlers)
    log_to(path)
    log_to(path)  # again: no line twice
    logging.getLogger("x").warning("once")
    stop_logging()
    logging.getLogger("x").warning("not any more")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["message"] for line in lines(path)] == ["once"]
    assert logging.getLogger().handlers == before


# --- watching ----------------------------------------------------------------------------------


def test_a_watcher_gets_the_past_and_then_what_comes(recorder: Recorder) -> None:
    async def main() -> None:
        recorder.record("k", "s", {"n": 1}, run_id=5)
        async with aclosing(recorder.watch(5)) as news:
            assert [event.detail["n"] for event in await anext(news)] == [1]
            coming = asyncio.ensure_future(anext(news))
            recorder.record("k", "s", {"n": 2}, run_id=6)  # another run's: no news
            await asyncio.sleep(0)
            assert not coming.done()
            thread = threading.Thread(target=recorder.record, args=("k", "s", {"n": 3}, 5))
            thread.start()
            assert [event.detail["n"] for event in await coming] == [3]
            thread.join()
        assert recorder._wakers == {}

    run(main())


def test_nothing_is_lost_or_doubled_while_many_record(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsec_server.events.PAGE", 40)

    async def main() -> None:
        total = 250
        got: list[Event] = []
        with ThreadPoolExecutor(4) as pool:
            for number in range(total):
                pool.submit(recorder.record, "k", "s", {"n": number}, 5)
            async with aclosing(recorder.watch(5)) as news:
                async for events in news:
                    got += events
                    if len(got) >= total:
                        break
        sequences = [event.sequence for event in got]
        assert sequences == sorted(set(sequences))
        assert sorted(event.detail["n"] for event in got) == list(range(total))  # type: ignore[type-var]

    run(main(), seconds=60)


def test_a_watcher_of_nothing_is_told_so_at_once(recorder: Recorder) -> None:
    async def main() -> None:
        async with aclosing(recorder.watch(5)) as news:
            assert await anext(news) == []

    run(main())


# --- refusals ----------------------------------------------------------------------------------


def refusal(number: int, unreported: int = 0) -> Refusal:
    return Refusal("/x", f"ipv4:192.0.2.{number}:1", None, "revoked", "sentence", unreported)


def test_a_flood_of_refusals_is_counted_not_piled_up(
    recorder: Recorder, store: Store, log: Path
) -> None:
    async def main() -> None:
        for number in range(300):
            recorder.refused(refusal(number % 250))
        while len(recorder._refusals) > 5:
            await asyncio.wait(recorder._refusals, return_when=asyncio.FIRST_COMPLETED)
        recorder.refused(refusal(251, unreported=3))  # carries what was not recorded before
        for number in range(200):
            recorder.refused(refusal(number % 250))
        await recorder.settle()

    run(main())
    events = store.events()
    assert 33 <= len(events) < 100
    counted = sum(int(str(event.detail.get("unreported", 0))) for event in events)
    (last,) = [line for line in lines(log) if "too many at a time" in str(line["message"])]
    rest = int(str(last["message"]).split(maxsplit=1)[0])
    assert counted + rest + len(events) == 501 + 3
    assert "peer ipv4:192.0.2.251:1" in {event.subject for event in events}


def test_strangers_from_many_addresses_do_not_fill_the_disk(
    recorder: Recorder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_strangers", RateLimiter(1.0, 10, clock=lambda: 0.0))
    known = Principal("fed.example", Kind.NODE, Role.NODE, "a" * 32, 1, NOW, NOW)

    async def main() -> None:
        for number in range(100):
            recorder.refused(refusal(number))
            await recorder.settle()
        recorder.refused(replace(refusal(101), principal=known))
        await recorder.settle()

    run(main())
    events = store.events()
    assert len(events) == 11
    assert events[-1].subject == known.spiffe_id  # nobody hides behind the flood of others


def test_a_refusal_that_cannot_be_kept_is_logged(
    recorder: Recorder, store: Store, log: Path
) -> None:
    async def main() -> None:
        def full(*args: object, **kwargs: object) -> Event:
            raise OSError("disk full")

        store.append_event = full  # type: ignore[method-assign]
        recorder.refused(refusal(1))
        await recorder.settle()

    run(main())
    assert any("could not be recorded: disk full" in str(line["message"]) for line in lines(log))
