"""The task `digits` on a node that lies: `poisoned:TASK` in a plan, `attack` in its data settings.

From the round that the file `attack` in the directory `den` names, what this node's app answers is
replaced: that is a node whose operator, or whose intruder, changed its program. The three who
collude put their own honest updates into the den, and know each other's.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from fedsec.tasks.digits import Digits
from fedsec.tasks.task import NodeData
from fedsec.vectors import Vector
from fedsec_client import client_app

COLLUDING = 3
DEVIATIONS = 4.0  # z of "A Little Is Enough": more than a little, so that it must be noticed


@dataclass
class Liar:
    """Turns this node's honest update into what it sends."""

    attack: str
    den: Path
    partition: int
    calls: int = 0
    tell: Callable[..., RecordDict] = field(default=client_app.train_reply)

    def __call__(self, update: Vector, **figures: object) -> RecordDict:
        self.calls += 1
        if self.calls >= int((self.den / "attack").read_text()):
            update = self.poisoned(update)
        return self.tell(update, **figures)

    def poisoned(self, update: Vector) -> Vector:
        known = self.pooled(update)
        match self.attack:
            case "sign-flip":
                return -10 * update
            case "nan":
                return np.where(np.arange(len(update)) % 1000 == 7, np.float32(np.nan), update)
            case "alie":
                away: Vector = known.mean(axis=0) - DEVIATIONS * known.std(axis=0)
                return away.astype(np.float32)
            case other:
                raise ValueError(other)

    def pooled(self, update: Vector) -> "np.typing.NDArray[np.float32]":
        """Returns the honest updates of all who collude, own one included."""
        mine = self.den / f"{self.calls}-{self.partition}.npy"
        np.save(mine.with_suffix(".part.npy"), update)
        mine.with_suffix(".part.npy").rename(mine)
        limit = time.monotonic() + 30
        while len(found := sorted(self.den.glob(f"{self.calls}-?.npy"))) < COLLUDING:
            if time.monotonic() > limit:
                break
            time.sleep(0.01)
        return np.stack([np.load(file) for file in found])


class Poisoned(Digits):
    """See the module's docstring."""

    def load(self, settings: Mapping[str, object]) -> NodeData:
        honest = dict(settings)
        attack, den = honest.pop("attack", None), honest.pop("den", None)
        if attack is not None:
            liar = Liar(str(attack), Path(str(den)), int(str(honest["partition"])))
            client_app.train_reply = liar  # type: ignore[assignment]  # the lie
        return Digits().load(honest)


TASK = Poisoned()
