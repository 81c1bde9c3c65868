"""What is to be written is written in order, off the loop, whatever happens to one write."""

import asyncio
import logging
import threading
from collections.abc import Mapping

import pytest

from fedsec_server import journal as journal_module
from fedsec_server.journal import Journal
from tests.wire.gated import run


class Recorded:
    """Takes events as a recorder does."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.threads: set[int] = set()

    def record(
        self,
        kind: str,
        subject: str,
        detail: Mapping[str, object] | None = None,
        run_id: int | None = None,
    ) -> None:
        self.threads.add(threading.get_ident())
        if kind == "bad":
            raise RuntimeError("the disk is full")
        self.kinds.append(kind)


def make() -> tuple[Journal, Recorded]:
    recorded = Recorded()
    return Journal(recorded), recorded  # type: ignore[arg-type]


def test_writes_keep_their_order_and_one_thread() -> None:
    async def main() -> None:
        journal, recorded = make()
        for i in range(100):
            journal.note(str(i), "subject")
        assert await journal.write(lambda: len(recorded.kinds)) == 100
        journal.note("last", "subject")
        await journal.close()
        assert recorded.kinds == [*(str(i) for i in range(100)), "last"]
        assert len(recorded.threads) == 1
        assert threading.get_ident() not in recorded.threads

    run(main())


def test_a_write_that_fails_is_logged_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        journal, recorded = make()
        journal.note("bad", "subject")
        journal.note("good", "subject")
        with pytest.raises(ZeroDivisionError):
            await journal.write(lambda: 1 // 0)
        await journal.close()
        assert recorded.kinds == ["good"]

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "a write to the database failed" in caplog.text


def test_what_comes_too_late_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        journal, recorded = make()
        await journal.close()
        journal.note("late", "subject")
        assert recorded.kinds == []

    run(main())
    assert "too late to write to the database: record" in caplog.text


def test_a_stuck_disk_does_not_fill_the_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_BACKLOG", 5)

    async def main() -> None:
        journal, recorded = make()
        stuck = threading.Event()
        journal.soon(stuck.wait)
        for i in range(20):
            journal.note(str(i), "subject")
        stuck.set()
        await journal.write(lambda: None)
        await asyncio.sleep(0)
        journal.note("after", "subject")
        await journal.close()
        assert recorded.kinds == ["0", "1", "2", "3", "after"]

    run(main())
    assert "16 writes were lost" in caplog.text
