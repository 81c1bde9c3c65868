"""The steps of `bulk.py`'s whole way, each by itself: what an update's time is made of.

Each is done in one process with nothing beside it, as on the way from the worker's array to the
ServerApp's; only the transfer between the machines is not here, it is `bulk.py`'s first row. Beside
each stands what it took before, or what nobody can be faster than.
"""

import time
from collections.abc import Callable

import common
import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from fedsec.flwr_arrays import Body, ReceivedArray
from fedsec.wire.blobs import Blob
from fedsec.wire.content import CHUNK_BYTES, Manifest
from fedsec.wire.npy import DTYPES, make_header

MB = 1_000_000


def steps(size: int, runs: int) -> list[common.Result]:
    """Returns a row for each step of an update of `size` bytes."""
    array = np.arange(size // 4, dtype=np.float32)
    plain = Array(array)
    header = make_header(DTYPES["<f4"], array.shape)
    body = memoryview(plain.data)[len(header) :]
    with Blob.write_named([body])[0] as blob:
        manifest, view = Manifest.of(body), blob.view()

        def received() -> ReceivedArray:
            return ReceivedArray(Body(array.dtype, array.shape, header, view))

        def one_by_one() -> None:
            for index in range(len(manifest.chunks)):
                start = index * CHUNK_BYTES
                manifest.check_chunk(index, view[start : start + CHUNK_BYTES])

        def write_then_hash() -> None:
            Blob.write([body]).close()
            one_by_one()

        def by_npy() -> NDArray[np.float32]:
            return Array("float32", array.shape, plain.stype, b"".join((header, view))).numpy()

        todo: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
            ("worker: Flower's Array of an ndarray", lambda: Array(array), "a copy", array.copy),
            (
                "worker: hash and write the content",
                lambda: Blob.write_named([body]),
                "one after the other",
                write_then_hash,
            ),
            (
                "run process: check the hashes",
                lambda: manifest.check(view),
                "on one processor",
                one_by_one,
            ),
            (
                "run process: ndarray of what came",
                lambda: received().numpy(),
                "by way of Flower's Array",
                by_npy,
            ),
        ]
        return [_row(f"{size // MB} MB, {case}", runs, *rest) for case, *rest in todo]


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
