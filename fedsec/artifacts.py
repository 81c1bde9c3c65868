"""Models on disk: safetensors, whole or not at all. `write_model` is the only place that writes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsec.errors import ConfigError
from fedsec.files import write_private

MAX_NOTE = 1 << 16  # characters of one value of the metadata


def write_model(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Writes `arrays` as a safetensors file that only its owner reads; returns its SHA-256 (hex).

    A crash leaves the old file or the new one. The directory must exist.

    Args:
        path: Of the file.
        arrays: The model's arrays by name.
        metadata: Kept in the file's header, e.g. the plan's digest.

    Raises:
        ConfigError: The metadata is not text, or the file cannot be written.
    """
    for key, value in metadata.items():
        if len(value) > MAX_NOTE:
            raise ConfigError(f"metadata {key!r} has {len(value)} characters, max {MAX_NOTE}")
    content = save(
        {name: np.asarray(array, order="C") for name, array in arrays.items()}, dict(metadata)
    )
    write_private(path, content)
    return hashlib.sha256(content).hexdigest()


def read_model(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Returns the arrays and the metadata of a file that `write_model` wrote.

    Raises:
        ConfigError: It is missing or no safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is not a model: {error}") from error
