"""The steps of `bulk.py`'s whole way, each by itself: what an update's time is made of.

Each is done in one process with nothing beside it, as on the way from the worker's array to the
ServerApp's; only the transfer between the machines is not here, it is `bulk.py`'s first row. Beside
each stands what it took before, or what nobody can be faster than.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import common
import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from fedsec.flwr_arrays import STYPE, Body, ReceivedArray
from fedsec.wire.blobs import Blob
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.npy import DTYPES, make_header

MB = 1_000_000

Step: TypeAlias = tuple[str, Callable[[], object], str, Callable[[], object]]
"""What it is, what is done, what stands beside it, and what that does."""


def steps(size: int, runs: int) -> list[common.Result]:
    """Returns a row for each step of an update of `size` bytes."""
    array = np.arange(size // 4, dtype=np.float32)
    with Blob.write_named([memoryview(array).cast("B")])[0] as blob:
        todo = (*at_the_worker(array, blob), *at_the_run_process(array, blob))
        return [_row(f"{size // MB} MB, {case}", runs, *rest) for case, *rest in todo]


def at_the_worker(array: NDArray[np.float32], blob: Blob) -> Iterator[Step]:
    """Yields the steps from an app's array to a memory file."""
    body = memoryview(array).cast("B")
    manifest = Manifest.of(body)

    def write_then_hash() -> None:
        Blob.write([body]).close()
        check_one_by_one(manifest, blob.view())

    yield "worker: Flower's Array of an ndarray", lambda: Array(array), "a copy", array.copy
    yield (
        "worker: hash and write the content",
        lambda: Blob.write_named([body]),
        "one after the other",
        write_then_hash,
    )


def at_the_run_process(array: NDArray[np.float32], blob: Blob) -> Iterator[Step]:
    """Yields the steps from a memory file to an app's array, which is read once."""
    header = make_header(DTYPES["<f4"], array.shape)
    view = blob.view()
    manifest, body = Manifest.of(view), Body(array.dtype, array.shape, header, view)

    def by_npy() -> float:
        data = b"".join((header, view))
        return float(Array("float32", array.shape, STYPE, data).numpy().max())

    yield (
        "run process: check the hashes",
        lambda: manifest.check(view),
        "on one processor",
        lambda: check_one_by_one(manifest, view),
    )
    yield (
        "run process: ndarray of what came, read once",
        lambda: ReceivedArray(body, blob.own_view()).numpy().max(),
        "by way of Flower's Array",
        by_npy,
    )
    yield (
        "run process: the same, written all over",
        lambda: np.add(mine := ReceivedArray(body, blob.own_view()).numpy(), 1, out=mine),
        "a copy, written all over",
        lambda: np.add(mine := body.array().copy(), 1, out=mine),
    )


def check_one_by_one(manifest: Manifest, view: memoryview) -> None:
    """Compares the hash of each chunk, one after the other."""
    for index in range(len(manifest.chunks)):
        start = index * CHUNK_BYTES
        manifest.check_chunk(index, view[start : start + CHUNK_BYTES])


def _row(
    case: str, runs: int, work: Callable[[], object], peer_name: str, peer: Callable[[], object]
) -> common.Result:
    ours, theirs = [], []
    for _ in range(runs + 1):  # the first one warms up
        ours.append(_seconds(work))
        theirs.append(_seconds(peer))
    return common.compare(case, "time", "s", ours=ours[1:], peer=theirs[1:], peer_name=peer_name)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    result = work()
    took = time.perf_counter() - began
    del result
    return took
