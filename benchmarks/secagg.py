"""Secure aggregation beside Flower 1.41's SecAgg+ functions: the same n, d, k, t and losses.

Processor time of each part, in one process and one run, and bytes on the wire. Both sides know the
same ring. Ours runs in malicious mode, all six stages; the signatures that it checks, of which
Flower has none, are in a row of their own. With ``--large`` n = 1,000 with simulated peers instead,
in both modes, beside what was estimated for it.

    python benchmarks/secagg.py [--quick] [--large [MODE]] [--json FILE]
"""

import os
import time
from collections.abc import Callable
from fractions import Fraction

import common
import numpy as np
import secagg_large
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from secagg_flower import Flower
from secagg_ours import MASKED, Ours

from fedsec.processors import threads_allowed
from fedsec.secagg import masks
from fedsec.secagg.keys import Stream
from fedsec.secagg.parameters import Assumptions, Mode, choose

FLOWER = "flwr 1.41 functions"
MASKS = 33  # that a node of k = 32 makes


def beside_flower(nodes: int, size: int, lost: int, *, runs: int) -> list[common.Result]:
    """Returns the comparison at one size."""
    gone = frozenset(range(3, 3 + 7 * lost, 7))
    tenth = Fraction(1, 10)
    assumptions = Assumptions(Mode.MALICIOUS, tenth, tenth, security_bits=40)
    found = choose(nodes, assumptions)
    vector = np.random.default_rng(1).normal(0, 0.001, size).astype(np.float32)
    ours = Ours(nodes, size, 32, assumptions, gone)
    narrow = Ours(nodes, size, 16, assumptions, gone)
    flower = Flower(nodes, found.neighbours, found.threshold, gone)
    for _ in range(runs):
        ours.run(vector)
        narrow.run(vector)
        flower.run(vector, masked=MASKED)
    of = f"n={nodes} d={size} k={found.neighbours} t={found.threshold} lost={lost}"
    names = ("reconstruct and unmask", "share keys", "mask", "add")
    words = {"mask": "encode and mask", "add": "add a masked vector"}
    checks = common.statistics.median(ours.spent["check signatures"])
    checked = [checks + each for each in ours.spent["share keys"]]
    rows = [
        _row(f"{words.get(name, name)}, {of}", ours.spent[name], flower.spent[name])
        for name in names
    ]
    rows += [
        _row(f"encode and mask, 16 bits, {of}", narrow.spent["mask"], flower.spent["mask"]),
        _row(f"share keys, signatures checked, {of}", checked, flower.spent["share keys"]),
    ]
    rows.append(
        common.compare(
            f"reconstruct and unmask, {threads_allowed()} cores, {of}",
            "time",
            "s",
            ours=ours.wall,
            peer=flower.spent["reconstruct and unmask"],
            peer_name=f"{FLOWER}, one core",
        )
    )
    return rows + _bytes_up(of, size, (("", ours), (", 16 bits", narrow)), flower)


def _bytes_up(
    of: str, size: int, sides: tuple[tuple[str, Ours], ...], flower: Flower
) -> list[common.Result]:
    """Returns what a node sends in a whole attempt, by entry of its vector."""
    return [
        common.compare(
            f"bytes up per entry, all stages{name}, {of}",
            "bytes",
            "B",
            ours=[side.upload / size],
            peer=[flower.upload / size],
            peer_name=f"{FLOWER}, masked vector alone",
        )
        for name, side in sides
    ]


def _row(case: str, ours: list[float], peer: list[float]) -> common.Result:
    count = min(len(ours), len(peer))
    return common.compare(
        case, "cpu_time", "s", ours=ours[:count], peer=peer[:count], peer_name=FLOWER
    )


def one_mask(size: int, runs: int, count: int = 1) -> common.Result:
    """Returns one mask of d words, of `count` that are made together, beside the bare cipher."""
    vector = np.zeros(size, np.uint32)
    streams = [Stream(os.urandom(16), os.urandom(16)) for _ in range(count)]
    stream = streams[0]
    blank, buffer = bytes(masks.CHUNK), bytearray(masks.CHUNK + 15)

    def bare() -> None:
        cipher = Cipher(AES(stream.key), CTR(stream.counter)).encryptor()
        for start in range(0, vector.nbytes, masks.CHUNK):
            part = min(masks.CHUNK, vector.nbytes - start)
            cipher.update_into(memoryview(blank)[:part], buffer)

    ours, peer = [], []
    for _ in range(runs):
        ours.append(_spent(lambda: masks.apply(vector, streams, [], threads=1)) / count)
        peer.append(_spent(bare))
    return common.compare(
        f"one mask{f', of {count} together' if count > 1 else ''}, one core, d={size}",
        "cpu_time",
        "s",
        ours=ours,
        peer=peer,
        peer_name="the bare AES-128-CTR keystream",
    )


def _spent(act: Callable[[], None]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def main() -> None:
    """Measures and publishes."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument(
        "--large",
        nargs="?",
        choices=("both", *secagg_large.MODES),
        const="both",
        help="n = 1,000, simulated peers, and nothing else; one mode takes about a minute",
    )
    options = parser.parse_args()
    if options.large:
        rows = secagg_large.rows_of(options.large)
    else:
        rows = beside_flower(100, 1_000_000, 5, runs=1 if options.quick else 3)
        rows += [one_mask(1_000_000, 41, MASKS), one_mask(1_000_000, 41)]
    common.publish(rows, options.json)


if __name__ == "__main__":
    main()
