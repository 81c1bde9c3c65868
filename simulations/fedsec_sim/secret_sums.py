"""Rows to the sums that a secure aggregation lets out, without its messages: of all, or of groups.

    rows --> words, as nodes make them --> one sum for each group --> means, one row each

The words are added up as the protocol does, and read as the coordinator reads them; masks would
cancel to the bit, so there are none (`tests/simulations/test_secret_sums.py` compares with the
protocol itself). A hostile node is bound by the words alone: it sends what several nodes together
could, so that no clip holds it, and leaves its share of the noise out.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
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
from fedsec_sim.stacked_words import words_of

FormOf: TypeAlias = Callable[[int, Heading], SumForm]
"""From how many nodes were to be in a sum, and the turn, to the form of their vectors."""

Groups: TypeAlias = Callable[[Sequence[int]], Sequence[Sequence[int]]]
"""From the ids of a cohort, ascending, to those of each group."""


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
        groups, failed = self._opened(found, attempt)
        sizes = {group.drawn for group in groups}
        forms = {size: self._form_of(size, heading) for size in sorted(sizes)}
        rows: list[Vector] = []
        weights: list[float] = []
        told: list[Metrics] = []
        for group, total in zip(groups, self._totals(groups, forms, found, attempt), strict=True):
            answered = len(group.present)
            summed = forms[group.drawn].decode(total, answered)
            row, weight = self._row(summed, answered, group.drawn)
            rows.append(row)
            weights.append(weight)
            if summed.figures:
                told.append(Metrics(summed.total or answered, summed.figures))
        return replace(
            found,
            rows=np.stack(rows) if rows else found.rows[:0],
            groups=tuple(group.present for group in groups),
            weights=np.array(weights),
            metrics=tuple(told),
            failed=frozen(failed),
        )

    def _opened(self, found: Collected, attempt: Attempt) -> tuple[list["_Group"], dict[int, str]]:
        """Returns the groups that have a sum, and of nodes that are in none why not."""
        places = {node: place for place, (node,) in enumerate(found.groups)}
        failed = dict(found.failed)
        groups: list[_Group] = []
        for drawn in self._groups(attempt.cohort):
            present = tuple(node for node in drawn if node in places)
            if len(present) < self._least:
                few = f"{len(present)} survivors, at least {self._least} are needed"
                failed |= dict.fromkeys(present, f"its group has no sum: {few}")
                continue
            groups.append(_Group(len(drawn), present, tuple(places[node] for node in present)))
        return groups, failed

    def _totals(
        self,
        groups: Sequence["_Group"],
        forms: Mapping[int, SumForm],
        found: Collected,
        attempt: Attempt,
    ) -> Iterator[Words]:
        """Yields the sum of the words of each group's nodes (length,)."""
        key = generator(self._seed, CODE, attempt.round, attempt.number).bytes(KEY_BYTES)
        for drawn, alike in groupby(groups, lambda group: group.drawn):
            some, form = list(alike), forms[drawn]
            turns = [
                (place, source_of(key, node))
                for group in some
                for node, place in zip(group.present, group.places, strict=True)
                if node not in self._hostile
            ]
            coded = words_of(form, found.rows, found.metrics, turns)
            for group in some:
                total = np.zeros(form.length, word_type(form.encoding.bits))
                for node, place in zip(group.present, group.places, strict=True):
                    if node in self._hostile:
                        row, told = found.rows[place], found.metrics[place]
                        total += overlong(form, row, told, source_of(key, node))
                    else:
                        total += next(coded)
                yield total


@dataclass(frozen=True, slots=True)
class _Group:
    """Nodes whose words are added up.

    Args:
        drawn: How many were to be in it.
        present: Ids of those that are.
        places: Of their rows.
    """

    drawn: int
    present: tuple[int, ...]
    places: tuple[int, ...]


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
    words = form.encode(update / np.float32(times), metrics, source)
    words[: encoding.length] *= words.dtype.type(times % (1 << form.word_bits))
    return words
