"""Rows to the sums that a secure aggregation lets out, without its messages: of all, or of groups.

    rows --> words, as nodes make them --> one sum for each group --> means, one row each

The words are added up as the protocol does, and read as the coordinator reads them; masks would
cancel to the bit, so there are none (`tests/simulations/test_secret_sums.py` compares with the
protocol itself). A hostile node is bound by the words alone: it sends what several nodes together
could, so that no clip holds it, and leaves its share of the noise out.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fedsec.encoding import Rotated, Words, word_type
from fedsec.flower.collection import Attempt, Collected, Post
from fedsec.flower.collection import Collection as Collecting
from fedsec.flower.messages import Heading, Metrics, read_heading
from fedsec.flower.replies import frozen
from fedsec.flower.sums import SumForm, Summed
from fedsec.privacy.keystream import KEY_BYTES, Keystream
from fedsec.vectors import Vector, norm
from fedsec_sim.chance import CODE, generator

FormOf: TypeAlias = Callable[[int, Heading], SumForm]
"""From how many nodes were to be in a sum, and the turn, to the form of their vectors."""

Groups: TypeAlias = Callable[[Sequence[int]], Sequence[Sequence[int]]]
"""From the ids of a cohort, ascending, to those of each group."""


honest = SumForm.encode
"""What a node does that keeps to the plan; a hostile one may have changed its software."""


RowOf: TypeAlias = Callable[[Summed, int, int], tuple[Vector, float]]
"""From a sum, who answered and who was to be in it, as numbers, to a row and how much it counts."""


def mean_of_answers(summed: Summed, answered: int, nodes: int) -> tuple[Vector, float]:
    """Returns the mean over who answered, whoever was to be in the sum."""
    del answered, nodes
    return summed.mean, summed.weight


def together(cohort: Sequence[int]) -> Sequence[Sequence[int]]:
    """Returns one group of all."""
    return (cohort,)


class SecretSums:
    """See `fedsec.flower.collection.Collection`.

    Args:
        inner: Collects the nodes' rows.
        form_of: How vectors are laid out.
        seed: Of the chance in rounding and noise.
        groups: Who is added up with whom.
        hostile: Ids of nodes that keep to no clip.
        row: What a sum makes.
        least: Nodes without which a sum is not opened.
    """

    def __init__(
        self,
        inner: Collecting,
        form_of: FormOf,
        seed: int,
        *,
        groups: Groups = together,
        hostile: Collection[int] = frozenset(),
        row: RowOf = mean_of_answers,
        least: int = 1,
    ) -> None:
        self._inner = inner
        self._form_of = form_of
        self._seed = seed
        self._groups = groups
        self._hostile = hostile
        self._row = row
        self._least = least

    def __call__(self, post: Post, attempt: Attempt) -> Collected:
        """See `Collection`."""
        found = self._inner(post, attempt)
        if not len(found.rows):
            return found
        heading = read_heading(attempt.content)
        key = generator(self._seed, CODE, attempt.round, attempt.number).bytes(KEY_BYTES)
        places = {node: place for place, (node,) in enumerate(found.groups)}
        forms: dict[int, SumForm] = {}
        rows: list[Vector] = []
        groups: list[tuple[int, ...]] = []
        weights: list[float] = []
        told: list[Metrics] = []
        failed = dict(found.failed)
        for group in self._groups(attempt.cohort):
            present = tuple(node for node in group if node in places)
            if len(present) < self._least:
                few = f"{len(present)} survivors, at least {self._least} are needed"
                failed |= dict.fromkeys(present, f"its group has no sum: {few}")
                continue
            if len(group) not in forms:
                forms[len(group)] = self._form_of(len(group), heading)
            form = forms[len(group)]
            total = self._sum(form, key, found, [places[node] for node in present])
            summed = form.decode(total, len(present))
            row, weight = self._row(summed, len(present), len(group))
            rows.append(row)
            groups.append(present)
            weights.append(weight)
            if summed.figures:
                told.append(Metrics(summed.total or len(present), summed.figures))
        return replace(
            found,
            rows=np.stack(rows) if rows else found.rows[:0],
            groups=tuple(groups),
            weights=np.array(weights),
            metrics=tuple(told),
            failed=frozen(failed),
        )

    def _sum(self, form: SumForm, key: bytes, found: Collected, places: Sequence[int]) -> Words:
        """Returns the sum of the words of the nodes whose rows lie at `places` (length,)."""
        total = np.zeros(form.length, word_type(form.encoding.bits))
        for place in places:
            (node,) = found.groups[place]
            encode = overlong if node in self._hostile else honest
            source = source_of(key, node)
            total += encode(form, found.rows[place], found.metrics[place], source)
        return total


def source_of(key: bytes, node: int) -> Keystream:
    """Returns a node's chance in an attempt; `key` is the attempt's."""
    return Keystream(hashlib.sha256(key + node.to_bytes(8, "big")).digest())


def overlong(form: SumForm, update: Vector, metrics: Metrics, source: Keystream) -> Words:
    """Returns the words (length,) of a node that adds no noise and scales its update to no clip.

    They are a multiple of words that an honest node could send, modulo the words' own modulus.

    Args:
        form: Of the sum.
        update: (d,), finite; of any length.
        metrics: As in `SumForm.encode`; weight and figures are those of one node.
        source: Of the chance in rounding.
    """
    encoding = form.encoding
    if isinstance(encoding, Rotated):
        form = replace(form, encoding=replace(encoding, noise=None))
    times = max(1, math.ceil(norm(update) / form.clip))
    words = honest(form, update / np.float32(times), metrics, source)
    words[: encoding.length] *= words.dtype.type(times % (1 << form.word_bits))
    return words
