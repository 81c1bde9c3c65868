"""What we aim at, of all that `benchmarks/` measures: one row for each aim.

An aim belongs to rows of one script, by patterns (`fnmatch`) on the case and on the peer's name. It
says how many times better than the peer we want to be, or which value of our own is wanted. A row
without an aim is measured all the same, and stands in docs/benchmarks.md.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from common import HIGHER_IS_BETTER, Result, shown


@dataclass(frozen=True)
class Aim:
    """One aim; exactly one of `times` and `value` is given.

    Attributes:
        script: Its name without ``.py``.
        case: Pattern.
        peer: Pattern.
        times: Least ratio to the peer.
        value: Of ours, in the row's unit: the least of a rate, else the most.
        metric: Of the row; empty: any.
    """

    script: str
    case: str
    peer: str = "*"
    times: float = 0.0
    value: float = 0.0
    metric: str = ""

    def is_of(self, script: str, result: Result) -> bool:
        """Whether this is an aim of that row."""
        return (
            script == self.script
            and self.metric in {"", result.metric}
            and fnmatchcase(result.case, self.case)
            and fnmatchcase(result.peer_name, self.peer)
        )

    def is_met(self, result: Result) -> bool:
        """Whether the row is as good as is wanted."""
        if self.times:
            return result.ratio >= self.times
        if result.metric in HIGHER_IS_BETTER:
            return result.ours >= self.value
        return result.ours <= self.value

    def words(self, result: Result) -> str:
        """Returns the aim as a table has it, e.g. ``8 times`` or ``150.0 ms``."""
        return f"{self.times:g} times" if self.times else shown(self.value, result.unit)


def _beside_byzfl() -> list[Aim]:
    times = {
        "mean": 1.5, "median": 8, "trimmed mean": 11, "meamed": 6, "krum": 6, "krum, accurate": 3,
        "multi-krum": 6, "multi-krum, accurate": 3, "geometric median": 7.5, "centred clipping": 11,
        "caf": 11, "nnm": 35, "nnm + trimmed mean": 20, "nnm + multi-krum": 90,
        "nnm + geometric median": 100,
    }  # fmt: skip
    return [Aim("robust", f"{rule} n=50 *", "byzfl*", times=least) for rule, least in times.items()]


def _beside_flowers_rules() -> list[Aim]:
    times = {"mean": 1, "median": 3, "trimmed mean": 3, "krum": 1, "multi-krum": 1, "bulyan": 3}
    return [
        Aim("robust", f"{rule}{how} n=*", "Flower*", times=least)
        for how in ("", ", as a strategy")
        for rule, least in times.items()
    ]


def _secure_sums() -> list[Aim]:
    def beside_flower(case: str, *, times: float = 0, value: float = 0) -> Aim:
        return Aim("secagg", f"{case}, n=100 *", times=times, value=value)

    return [
        beside_flower("reconstruct and unmask", times=60),
        beside_flower("reconstruct and unmask, 2 cores", value=0.16),
        beside_flower("share keys", times=80),
        beside_flower("encode and mask", times=7),
        beside_flower("bytes up per entry, all stages", value=4.1),
        beside_flower("bytes up per entry, all stages, 16 bits", value=2.1),
        Aim("secagg", "one mask*", times=round(1 / 1.35, 2)),
    ]


AIMS: tuple[Aim, ...] = (
    Aim("demo", "demo", value=120.0),
    Aim("demo", "demo, at its peak", value=5e9),
    Aim("round_latency", "round n=3 *", times=40),
    Aim("round_latency", "round n=3 *", value=0.15),
    Aim("bulk", "* agent -> coordinator", value=500),
    Aim("bulk", "*ndarray", value=150),
    Aim("bulk", "*most memory*", value=2.5),
    Aim("idle", "*memory of the coordinator*", value=150_000),
    Aim("idle", "*processor time*", value=0.01),
    Aim("idle", "*1 kB to all*", value=2.0),
    Aim("under_attack", "*", times=round(1 / 1.2, 2)),
    *_beside_byzfl(),
    *_beside_flowers_rules(),
    *(Aim("noise", f"* sigma={sigma} *", "numpy*", value=70) for sigma in (1, 8, 64)),
    Aim("noise", "*", "numpy*", times=0.9),
    Aim("private_training", "DP-SGD step *", times=round(1 / 1.5, 2)),
    *_secure_sums(),
    Aim("simulation", "A steady", "Flower*", times=50),
    Aim("simulation", "A with start", "Flower*", times=130),
    Aim("simulation", "A one process", "pfl*", times=5),
    Aim("simulation", "A one process", "byzfl*", times=8),
    Aim("simulation", "B steady", "Flower*", times=4.5),
    Aim("simulation", "B with start", "Flower*", times=14),
    Aim("simulation", "B one process", "pfl*", times=1.5),
    Aim("simulation", "B trimmed mean, ALIE", times=round(1 / 1.3, 2)),
    Aim("convolutions", "*", "autograd", times=1),
    Aim("simulation", "*1000 in a round", value=1.0, metric="time"),
    Aim("simulation", "*1000 in a round", value=1.5e9, metric="memory"),
)


def of(script: str, result: Result) -> list[Aim]:
    """Returns the aims of a row."""
    return [aim for aim in AIMS if aim.is_of(script, result)]
