"""Content is fetched once, kept within a bound, and let go of."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from fedsec.errors import ProtocolError
from fedsec.wire.blobs import Blob
from fedsec.wire.content import Manifest
from fedsec_client.downloads import Budget, Downloads


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def content(byte: int, length: int = 10) -> tuple[Manifest, bytes]:
    data = bytes([byte]) * length
    return Manifest.of(data), data


class Source:
    """Content that a coordinator would send, when the test lets it."""

    def __init__(self, *datas: bytes) -> None:
        self.datas = {Manifest.of(data).digest: data for data in datas}
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, run_id: int, manifest: Manifest) -> Blob:
        self.asked.append(manifest.digest)
        await self.gate.wait()
        if manifest.digest not in self.datas:
            raise ProtocolError("", "no-content", "there is none")
        return Blob.write([self.datas[manifest.digest]])


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_same_content_is_fetched_once_and_kept_for_the_next_time() -> None:
    async def main() -> None:
        manifest, data = content(1)
        source, budget = Source(data), Budget(100)
        downloads = Downloads(source.fetch, budget)
        for _ in range(3):
            async with downloads.use(1, manifest) as blob:
                assert bytes(blob.view()) == data
        assert len(source.asked) == 1
        assert budget.used == 10

    run(main())


def test_two_who_want_the_same_at_a_time_share_one_fetch() -> None:
    async def main() -> None:
        manifest, data = content(1)
        source, budget = Source(data), Budget(100)
        source.gate.clear()
        downloads = Downloads(source.fetch, budget)

        async def want() -> bytes:
            async with downloads.use(1, manifest) as blob:
                return bytes(blob.view())

        wanted = [asyncio.create_task(want()) for _ in range(2)]
        await settle()
        wanted[0].cancel()  # does not disturb the other one
        await settle()
        source.gate.set()
        assert await wanted[1] == data
        assert len(source.asked) == 1

    run(main())


def test_a_run_s_newer_content_takes_the_place_of_the_older() -> None:
    async def main() -> None:
        (old, old_data), (new, new_data) = content(1), content(2)
        source, budget = Source(old_data, new_data), Budget(100)
        downloads = Downloads(source.fetch, budget)
        async with downloads.use(1, old) as blob:
            pass
        async with downloads.use(1, new):
            assert blob.fd < 0
        assert budget.used == 10
        async with downloads.use(2, old):  # runs do not share: another run may not see it
            assert len(source.asked) == 3
        downloads.forget(1)
        downloads.forget(2)
        assert budget.used == 0

    run(main())


def test_who_needs_room_gets_what_nobody_uses_and_waits_for_the_rest() -> None:
    async def main() -> None:
        parts = [content(byte) for byte in (1, 2, 3)]
        source, budget = Source(*(data for _, data in parts)), Budget(20)
        downloads = Downloads(source.fetch, budget)
        async with downloads.use(1, parts[0][0]):
            pass
        async with downloads.use(2, parts[1][0]):
            async with downloads.use(3, parts[2][0]):  # takes the place of run 1's, which is idle
                waiting = asyncio.ensure_future(downloads.use(1, parts[0][0]).__aenter__())
                await settle()
                assert (budget.used, len(source.asked), waiting.done()) == (20, 3, False)
            await asyncio.wait_for(waiting, 30)
            assert (budget.used, len(source.asked)) == (20, 4)

    run(main())


def test_a_failed_fetch_is_told_and_tried_again() -> None:
    async def main() -> None:
        manifest, data = content(1)
        source, budget = Source(), Budget(100)
        downloads = Downloads(source.fetch, budget)
        with pytest.raises(ProtocolError, match="no-content"):
            async with downloads.use(1, manifest):
                pass
        assert budget.used == 0
        source.datas[manifest.digest] = data
        async with downloads.use(1, manifest) as blob:
            assert bytes(blob.view()) == data

    run(main())


def test_nobody_waits_any_more_and_the_fetch_ends() -> None:
    async def main() -> None:
        manifest, data = content(1)
        source, budget = Source(data), Budget(100)
        source.gate.clear()
        downloads = Downloads(source.fetch, budget)
        wanting = asyncio.ensure_future(downloads.use(1, manifest).__aenter__())
        await settle()
        assert budget.used == 10
        wanting.cancel()
        await settle()
        assert budget.used == 0

    run(main())


def test_forgotten_content_stays_with_who_uses_it_and_is_fetched_anew_for_others() -> None:
    async def main() -> None:
        manifest, data = content(1)
        source, budget = Source(data), Budget(100)
        downloads = Downloads(source.fetch, budget)
        async with downloads.use(1, manifest) as first:
            downloads.forget(1, manifest.digest)
            assert bytes(first.view()) == data
            async with downloads.use(1, manifest) as second:
                assert second is not first
                assert budget.used == 20
        assert first.fd < 0
        assert (budget.used, len(source.asked)) == (10, 2)

    run(main())


def test_bytes_are_given_in_the_order_of_asking_and_never_beyond_the_bound() -> None:
    async def main() -> None:
        budget = Budget(10)
        await budget.take(6)
        order: list[int] = []

        async def want(count: int) -> None:
            await budget.take(count)
            order.append(count)

        tasks = [asyncio.create_task(want(count)) for count in (8, 2, 3)]
        await settle()
        assert (order, budget.used) == ([], 6)  # 2 would fit, and waits for its turn
        tasks[0].cancel()
        await settle()
        assert (order, budget.used) == ([2], 8)
        budget.give(8)
        await settle()
        assert (order, budget.used) == ([2, 3], 3)

    run(main())


def test_what_is_larger_than_the_bound_passes_alone() -> None:
    async def main() -> None:
        budget = Budget(10)
        await asyncio.wait_for(budget.take(11), 30)
        assert not budget.fits(1)
        budget.charge(5)
        budget.give(16)
        assert budget.used == 0

    run(main())
