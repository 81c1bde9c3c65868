"""Backward passes that are written out, beside autograd: the same gradients, bits of their own."""

import pytest
import torch
from torch import Tensor

from fedsec_sim.engines.stacked import (
    Batch,
    ByHand,
    ByStages,
    ByVmap,
    Gradients,
    gradients_of,
)
from tests.simulations.benches import SIZES, Made, Smoothed, population


@pytest.mark.parametrize(
    ("model", "task", "way"),
    [
        ("mlp", Made, ByHand),
        ("deep", Made, ByHand),
        ("linear", Made, ByHand),
        ("cnn", Made, ByStages),
        ("lenet", Made, ByStages),
        ("pooled", Made, ByStages),
        ("padded", Made, ByVmap),
        ("lenet", Smoothed, ByVmap),
        ("norm", Made, ByVmap),  # a layer that is not written out
        ("mlp", Smoothed, ByVmap),  # another loss
    ],
)
def test_what_is_written_out_is_taken_under_cross_entropy_alone(
    model: str, task: type[Made], way: type
) -> None:
    made = task(model)
    pool = population().train.pool
    assert type(gradients_of(made.make_model({}, 1), made, pool)) is way


def stacked(way: Gradients, model: str, factors: list[float]) -> list[Tensor]:
    """Returns weights of several models, as wide as `way` wants them, each a multiple."""
    made = []
    for weight, shape in zip(Made(model).make_model({}, 1).parameters(), way.shapes, strict=True):
        made.append(torch.zeros(len(factors), *shape))
        for node, factor in enumerate(factors):
            made[-1][(node, *map(slice, weight.shape))] = weight.detach() * factor
    return made


def own(weight: Tensor, like: Tensor) -> Tensor:
    return weight[tuple(map(slice, like.shape))]


WRITTEN_OUT = ["mlp", "deep", "shared", "linear", "cnn", "lenet", "pooled"]


def by_hand_of(model: str) -> Gradients:
    made = Made(model)
    way = gradients_of(made.make_model({}, 1), made, population().train.pool)
    assert way.independent
    return way


@pytest.mark.parametrize("model", WRITTEN_OUT)
@pytest.mark.parametrize("counts", [(5, 5, 5), (5, 1, 3)])
def test_gradients_by_hand_are_those_of_autograd(model: str, counts: tuple[int, ...]) -> None:
    made, pool, rows = Made(model), population().train.pool, torch.arange(15).view(3, 5)
    by_hand = by_hand_of(model)
    weights = stacked(by_hand, model, [1.0, 2.0, 3.0])
    means, found = by_hand(weights, Batch(rows, torch.tensor(counts), full=counts == (5, 5, 5)))
    for node, count in enumerate(counts):
        alone = made.make_model({}, 1)
        for weight, whole in zip(alone.parameters(), weights, strict=True):
            weight.data.copy_(own(whole[node], weight))
        seen = rows[node, :count]
        loss = made.loss(alone(pool.inputs[seen]), pool.targets[seen])
        torch.testing.assert_close(means[node], loss.detach(), rtol=1e-5, atol=1e-6)
        wanted = torch.autograd.grad(loss, [*alone.parameters()])
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(own(got[node], want), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", WRITTEN_OUT)
@pytest.mark.parametrize("batch", [1, 5, 7, 16])
def test_bits_by_hand_do_not_depend_on_neighbours(model: str, batch: int) -> None:
    nodes, generator = 33, torch.Generator().manual_seed(batch)
    by_hand = by_hand_of(model)
    weights = stacked(by_hand, model, [1 + 0.1 * node for node in range(nodes)])
    rows = torch.randint(0, sum(SIZES), (nodes, batch), generator=generator)
    counts = torch.randint(1, batch + 1, (nodes,), generator=generator)
    means, found = by_hand(weights, Batch(rows, counts, full=False))
    for part in (slice(0, 1), slice(7, 8), slice(3, 5), slice(16, 33)):
        some = Batch(rows[part], counts[part], full=bool((counts[part] == batch).all()))
        again, others = by_hand([weight[part].clone() for weight in weights], some)
        assert torch.equal(again, means[part])
        assert all(torch.equal(a, b[part]) for a, b in zip(others, found, strict=True))


@pytest.mark.parametrize("model", ["deep", "lenet"])
def test_a_node_that_diverges_spoils_no_other(model: str) -> None:
    by_hand = by_hand_of(model)
    rows, counts = torch.arange(10).view(2, 5), torch.tensor([3, 2])
    means, found = by_hand(stacked(by_hand, model, [1.0, 1e30]), Batch(rows, counts, full=False))
    assert not torch.isfinite(means[1])
    assert torch.isfinite(means[0])
    assert all(torch.isfinite(each[0]).all() for each in found)
