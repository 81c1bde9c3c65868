"""What nodes add up in secret: an update, its weight, and the figures that the plan lets out.

    words = code of (w / W) x | w | one word for each figure
            w the node's weight, W the largest; no word for it where all weigh alike

The update x is clipped in L2 before it is weighted, the same bound for every node, and every
weighted entry is kept to that bound again when it is coded: a sum of `members` such vectors cannot
overflow, whatever the nodes' weights are. Weight and figures stand outside any rotation.

A node that has more than W counts for W, by its own program. What a hostile one claims is hidden by
the sum: only a total that no weights up to W give is refused.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsec.encoding import Encoding, FixedPoint, Rotated, Words, padded, word_type
from fedsec.errors import ConfigError
from fedsec.flower.messages import Heading, Metrics
from fedsec.plan import FederationPlan
from fedsec.plan.figures import joined_of
from fedsec.plan.privacy import honest, population
from fedsec.plan.secure_aggregation import coded_bits, max_weight, update_clip, word_bits
from fedsec.plan.visibility import group_size, most_in_a_sum
from fedsec.privacy.clipping import clip_factor
from fedsec.privacy.distributed import NoisySum, set_up
from fedsec.privacy.keystream import Keystream
from fedsec.privacy.skellam import Skellam
from fedsec.vectors import Vector, norm

COARSEST = 0.9
"""Share of the clip that must be left when updates are kept short of it by the grid."""

ROTATION = b"fedsec-v1/rotation\0"
"""Label of the public seed of a turn's rotation."""


@dataclass(frozen=True)
class Summed:
    """What a sum says.

    Args:
        mean: Weighted mean of the updates (d,).
        weight: Sum of the weights, in units of the largest.
        total: Sum of the weights as the nodes count them, e.g. examples; None where all are alike.
        figures: Weighted means, by name.
    """

    mean: Vector
    weight: float
    total: int | None
    figures: Mapping[str, float]


@dataclass(frozen=True)
class SumForm:
    """How a node's vector is laid out.

    Args:
        encoding: Of the update.
        clip: Largest L2 norm of an update.
        members: How many vectors are added at most.
        max_weight: Largest weight; None: all weigh alike.
        figures: Range of each figure that is let out, by name.
    """

    encoding: Encoding
    clip: float
    members: int
    max_weight: int | None = None
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def word_bits(self) -> int:
        """Bits of a word."""
        return 8 * np.dtype(word_type(self.encoding.bits)).itemsize

    @property
    def length(self) -> int:
        """Words of a vector."""
        return self.encoding.length + (self.max_weight is not None) + len(self.figures)

    @property
    def _steps(self) -> int:
        """Largest code of a figure; the sum of `members` of them fits into a word."""
        return ((1 << self.word_bits) - 1) // self.members

    def encode(self, update: Vector, metrics: Metrics, source: Keystream) -> Words:
        """Returns a node's words (length,).

        Args:
            update: (d,), finite.
            metrics: Examples, of which at most `max_weight` count; values, each kept to its range,
                one that is NaN as its middle.
            source: Of the chance in rounding and noise.

        Raises:
            ConfigError: A figure that the plan lets out is missing.
        """
        share = self._share(metrics.examples)
        entries = self.encoding.encode(self._weighted(update, share), source)
        size = self.encoding.length
        if self.length == size:
            return entries
        words = np.empty(self.length, entries.dtype)
        words[:size] = entries
        if self.max_weight is not None:
            words[size] = min(metrics.examples, self.max_weight)
        start = self.length - len(self.figures)
        for place, (name, (low, high)) in enumerate(self.figures.items(), start):
            value = _figure(metrics, name)
            value = (low + high) / 2 if math.isnan(value) else min(max(value, low), high)
            coded = (value - low) / (high - low) * share * self._steps
            words[place] = min(int(coded + source.uniforms(1)[0]), self._steps)
        return words

    def decode(self, total: Words, survivors: int) -> Summed:
        """Returns what the sum (length,) of so many nodes' words says.

        A node can add any word to the total of weights and to a figure. A total that no weights of
        the stated range give is refused; a figure is kept to its range.

        Raises:
            ConfigError: The weights add up to nothing, or to more than so many nodes can have.
        """
        size = self.encoding.length
        weight, counted = float(survivors), None
        if self.max_weight is not None:
            counted = int(total[size])
            if counted > survivors * self.max_weight:
                raise ConfigError(
                    f"the nodes' weights add up to {counted}, {survivors} nodes have "
                    f"{survivors * self.max_weight} at most: one of them added what is no weight"
                )
            weight = counted / self.max_weight
        if weight <= 0:
            raise ConfigError("the nodes' weights add up to 0")
        mean = self.encoding.decode(total[:size])
        mean /= weight
        start = self.length - len(self.figures)
        figures = {
            name: low + (high - low) * min(1.0, float(total[place]) / self._steps / weight)
            for place, (name, (low, high)) in enumerate(self.figures.items(), start)
        }
        return Summed(mean.astype(np.float32), weight, counted, figures)

    def _share(self, examples: int) -> float:
        if self.max_weight is None:
            return 1.0
        return min(examples, self.max_weight) / self.max_weight

    def _weighted(self, update: Vector, share: float) -> Vector:
        factor = share * clip_factor(norm(update), self.clip)
        return update if factor == 1.0 else update * np.float32(factor)


def sum_form(plan: FederationPlan, size: int, heading: Heading) -> SumForm:
    """Returns the form of a secure sum; node and coordinator make the same one.

    Args:
        plan: With secure aggregation.
        size: d, entries of what a node sends: `fedsec.plan.figures.width`.
        heading: The turn; a form may differ from turn to turn, as a rotation does.

    Raises:
        ConfigError: The plan has no secure aggregation, or one that this form does not cover.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    clip = update_clip(plan)
    encoding: Encoding
    if coded_bits(plan) is not None:
        clip, encoding = vector_clip(plan), noised(plan, size, heading)
    else:
        encoding = FixedPoint(size, clip, most_in_a_sum(plan), word_bits(plan))
        if plan.privacy is not None and plan.privacy.model == "central":
            clip = _short_of(clip, encoding)
    return SumForm(
        encoding=encoding,
        clip=clip,
        members=most_in_a_sum(plan),
        max_weight=max_weight(plan),
        figures={name: (low, high) for name, (low, high) in section.metrics.items()},
    )


def row_of(
    plan: FederationPlan, summed: Summed, *, answered: int, nodes: int
) -> tuple[Vector, float]:
    """Returns the row (d,) that a sum makes, and how much it counts.

    Where the nodes have noised the sum, what it is divided by must not tell who answered.

    Args:
        plan: With secure aggregation.
        summed: What the sum says.
        answered: Nodes whose vectors are in it.
        nodes: Nodes of its group as it was drawn.
    """
    privacy = plan.privacy
    if privacy is None or privacy.model != "distributed":
        return summed.mean, summed.weight
    public = population(plan) if group_size(plan) is None else nodes
    return summed.mean * np.float32(answered / public), float(public)


def _short_of(clip: float, encoding: FixedPoint) -> float:
    """Returns to what to clip so that an update is no longer than `clip` after rounding.

    Raises:
        ConfigError: The grid is so coarse that a tenth of the clip would be lost.
    """
    inside = clip - math.sqrt(encoding.size) / encoding.scale
    if inside < COARSEST * clip:
        raise ConfigError(
            f"words of {encoding.bits} bits are too coarse for central privacy over "
            f"{encoding.size} entries; write secure_aggregation.word_bits = 32"
        )
    return inside


def noised(plan: FederationPlan, size: int, heading: Heading) -> Rotated:
    """Returns the encoding of distributed privacy, with the node's share of the noise.

    Grid and noise follow from the plan and d alone; the rotation is a new one in every turn.

    Args:
        plan: With ``privacy.model = "distributed"``.
        size: d, entries of what a node sends: `fedsec.plan.figures.width`.
        heading: The turn.

    Raises:
        ConfigError: The plan has no such privacy, or its words are too short.
    """
    found = noisy_sum(plan, size)
    turn = f"{heading.plan} {heading.round} {heading.attempt}".encode()
    seed = hashlib.sha256(ROTATION + turn).digest()
    return Rotated(size, vector_clip(plan), found.scale, found.bits, seed, Skellam(found.share))


def noisy_sum(plan: FederationPlan, size: int) -> NoisySum:
    """Returns grid, words and noise shares of distributed privacy, for vectors of `size` entries.

    Raises:
        ConfigError: The plan has no such privacy, or its words are too short.
    """
    bits, privacy = coded_bits(plan), plan.privacy
    if bits is None or privacy is None:
        raise ConfigError('the plan has no privacy.model = "distributed"')
    return set_up(
        length=padded(size),
        clip=vector_clip(plan),
        nodes=population(plan) if group_size(plan) is None else most_in_a_sum(plan),
        honest=honest(plan),
        noise_multiplier=privacy.noise_multiplier,
        bits=bits,
    )


def vector_clip(plan: FederationPlan) -> float:
    """Returns the largest L2 norm of what a node sends: its update, and figures behind it."""
    joined = joined_of(plan)
    return update_clip(plan) if joined is None else joined.norm


def _figure(metrics: Metrics, name: str) -> float:
    if name not in metrics.values:
        raise ConfigError(
            f"the plan lets {name!r} out (secure_aggregation.metrics), but this node's app reports "
            f"{', '.join(sorted(metrics.values)) or 'nothing'}"
        )
    return metrics.values[name]
