"""Which convolutional networks are written out, and in which order their layers are taken."""

import pytest
import torch
from torch import nn

from fedsec_sim.engines.convolved import Bend, Convolution, Dense, Flat, MaxPool, stages_of
from fedsec_sim.workloads.images import lenet


def test_pooling_comes_before_the_bend() -> None:
    kinds = [type(stage) for stage in stages_of(lenet())]
    half = [Convolution, MaxPool, Bend]
    assert kinds == [*half, *half, Flat, Dense, Bend, Dense, Bend, Dense]


CONV, END = nn.Conv2d(1, 2, 3), (nn.Flatten(), nn.Linear(72, 10))


@pytest.mark.parametrize(
    "layers",
    [
        END,  # no convolution at all
        (CONV, nn.Sigmoid(), *END),
        (nn.Conv2d(1, 2, 3, stride=2), *END),
        (nn.Conv2d(1, 2, 3, padding="same"), *END),
        (nn.Conv2d(1, 2, 3, dilation=2), *END),
        (nn.Conv2d(2, 2, 3, groups=2), *END),
        (CONV, nn.MaxPool2d(2, padding=1), *END),
        (CONV, nn.MaxPool2d(2, ceil_mode=True), *END),
        (CONV, nn.Flatten(2), nn.Linear(36, 10)),
        (CONV,),  # nothing flattens it
        (nn.Linear(8, 8), CONV, *END),
        (CONV, nn.Flatten(), nn.Conv2d(1, 2, 3), nn.Linear(72, 10)),
    ],
    ids=str,
)
def test_what_is_not_written_out_has_no_stages(layers: tuple[nn.Module, ...]) -> None:
    assert stages_of(nn.Sequential(*layers)) == ()


def test_of_equal_entries_torchs_choice_counts() -> None:
    """Flat images have nothing but ties."""
    torch.manual_seed(1)
    x = (
        torch.randint(0, 2, (3, 2, 6, 6)).float().requires_grad_()
    )  # examples first, as torch has it
    ahead = torch.rand(3, 2, 3, 3)
    (wanted,) = torch.autograd.grad((nn.functional.max_pool2d(x, 2) * ahead).sum(), x)
    stage, last = MaxPool((2, 2), (2, 2)), (1, 2, 3, 0)
    _, kept = stage.forward(x.detach().permute(last).contiguous(), ())
    found = stage.backward(ahead.permute(last), kept, (), (), further=True)
    assert torch.equal(found, wanted.permute(last))
