"""A torch model's state as named numpy arrays, and back."""

from typing import Any

import torch
from numpy.typing import NDArray

from fedsec.errors import ConfigError
from fedsec.vectors import Arrays, Layout


def get_arrays(model: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """Returns parameters and buffers by name, in the model's order.

    Arrays of a model on the CPU share its memory: copy what must outlive the next step.

    Raises:
        ConfigError: A tensor has a dtype that numpy lacks, e.g. bfloat16.
    """
    arrays = {}
    for name, tensor in model.state_dict().items():
        try:
            arrays[name] = tensor.detach().cpu().numpy()
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"the model's {name!r} cannot be trained here: {error}") from error
    return arrays


def set_arrays(model: torch.nn.Module, arrays: Arrays) -> None:
    """Writes `arrays` into the model.

    Raises:
        ConfigError: They are not this model's: names, shapes or dtypes differ.
    """
    own = get_arrays(model)
    difference = Layout.of(own).difference(arrays)
    if difference is not None:
        raise ConfigError(f"not the arrays of this model: {difference}")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.tensor(arrays[name]))  # copies, as the arrays may be read-only
