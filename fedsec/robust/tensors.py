"""Rules on torch tensors: in goes a tensor, out comes one of the same dtype, on the CPU.

Kept apart so that nothing else here imports torch.
"""

from typing import Unpack

import torch
from torch import Tensor

from fedsec.robust.aggregate import Aggregate
from fedsec.robust.options import Options
from fedsec.robust.pipeline import Pipeline
from fedsec.robust.rule import Rule


def aggregate_tensors(
    rule: Rule | Pipeline, updates: Tensor, **options: Unpack[Options]
) -> tuple[Tensor, Aggregate]:
    """Returns the result (d,) as a tensor, and how each row came into it.

    Nothing is copied from a float16, float32 or float64 tensor on the CPU. bfloat16, which numpy
    does not have, is copied as float32 first: twice the memory of the updates on top.

    Raises:
        ConfigError: As the rule.
        TooManyFaults: As the rule.
    """
    plain = updates.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    found = rule(plain.numpy(), **options)
    return torch.from_numpy(found.vector).to(updates.dtype), found
