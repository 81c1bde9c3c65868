"""Where data files lie: FEDSEC_DATA, or a folder ``shared/data`` beside a folder above this one."""

import os
from pathlib import Path

from fedsec.errors import ConfigError

VARIABLE = "FEDSEC_DATA"


def data_file(name: str) -> Path:
    """Returns the path of a data file.

    Args:
        name: Relative to the folder, e.g. ``"mnist/t10k-labels-idx1-ubyte.gz"``.

    Raises:
        ConfigError: It is not there; says where it was looked for.
    """
    given = os.environ.get(VARIABLE)
    here = Path(__file__).resolve()
    folders = [Path(given)] if given else [up / "shared" / "data" for up in here.parents]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    where = given or "shared/data beside this checkout"
    raise ConfigError(f"{name} is not in {where}; set {VARIABLE} to the folder that holds it")
