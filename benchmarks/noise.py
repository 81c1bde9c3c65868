"""Exact noise beside what peers draw: millions of samples per second of one thread.

``rint(normal)`` is numpy's fastest Gaussian, rounded: neither exact nor unpredictable, but the
speed to beat. OpenDP's sampler is exact, one number at a time. Rates are per second of processor
time, so that what else the machine does does not count.

    python benchmarks/noise.py [--quick] [--json FILE]
"""

import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import opendp.prelude as dp
from common import Result, arguments, compare, publish

from fedsec.privacy.discrete_gaussian import DiscreteGaussian
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.skellam import Skellam

SIZE = 1 << 22
NUMPY = f"numpy {np.__version__} rint(normal)"
OPENDP = "opendp make_gaussian, integers"


def rate(draw: Callable[[int], object], size: int) -> float:
    """Returns millions of draws per second of processor time."""
    started = time.process_time()
    draw(size)
    return size / (time.process_time() - started) / 1e6


def rates(
    ours: Callable[[int], object], peer: Callable[[int], object], runs: int, sizes: tuple[int, int]
) -> tuple[list[float], list[float]]:
    """Returns the rates of both, measured in turn, after one draw each that makes tables."""
    ours(1)
    peer(1)
    pairs = [(rate(ours, sizes[0]), rate(peer, sizes[1])) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def results(*, quick: bool) -> Iterator[Result]:
    """Yields every case."""
    source, floats = Keystream(), np.random.default_rng()
    runs, size = (5, SIZE // 4) if quick else (15, SIZE)
    kinds: dict[str, Callable[[float], DiscreteGaussian | Skellam]] = {
        "discrete gaussian": lambda sigma: DiscreteGaussian(Fraction(sigma) ** 2),
        "skellam": lambda sigma: Skellam(sigma**2),
    }
    for kind, made in kinds.items():
        for sigma in (1.0, 8.0, 64.0, 500.0, 4000.0):
            mechanism = made(sigma)

            def ours(n: int, mechanism: DiscreteGaussian | Skellam = mechanism) -> object:
                return mechanism.sample(n, source)

            def theirs(n: int, sigma: float = sigma) -> object:
                return np.rint(floats.normal(0, sigma, n))

            mine, peers = rates(ours, theirs, runs, (size, size))
            yield compare(
                f"{kind} sigma={sigma:g} n={size}", "rate", "M/s",
                ours=mine, peer=peers, peer_name=NUMPY,
            )  # fmt: skip
    yield from large(runs, size, source)


def large(runs: int, size: int, source: Keystream) -> Iterator[Result]:
    """Yields large variances, and OpenDP."""
    dp.enable_features("contrib")
    domain, metric = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    for sigma in (64.0, 1e6):
        mechanism = DiscreteGaussian(Fraction(sigma) ** 2)
        noised = dp.m.make_gaussian(domain, metric, scale=sigma)
        mine, peers = rates(
            lambda n, mechanism=mechanism: mechanism.sample(n, source),
            lambda n, noised=noised: noised([0] * n),
            min(runs, 5),
            (size, 20_000),
        )
        yield compare(
            f"discrete gaussian sigma={sigma:g}", "rate", "M/s",
            ours=mine, peer=peers, peer_name=OPENDP,
        )  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    publish(results(quick=options.quick), options.json)
