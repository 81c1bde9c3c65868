"""scikit-learn's 569 biopsies: 30 measurements of cell nuclei each; malignant (0) or benign (1).

Source: Street, Wolberg, Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
1993; UCI repository, "Breast Cancer Wisconsin (Diagnostic)".
"""

from importlib.util import find_spec
from pathlib import Path

from fedsec.data.settings import BreastCancer, Csv
from fedsec.errors import DataError

PARTS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
INPUTS = (
    *(f"mean {part}" for part in PARTS),
    *(f"{part} error" for part in PARTS),
    *(f"worst {part}" for part in PARTS),
)
"""scikit-learn's names of the columns, in the file's order."""


def as_csv(settings: BreastCancer) -> Csv:
    """Returns how scikit-learn's own file is read; importing its reader would take a second.

    Raises:
        DataError: scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise DataError("the breast-cancer data need scikit-learn: pip install scikit-learn")
    return Csv(
        connector="csv",
        directory=str(Path(folders[0], "datasets", "data")),
        files=["breast_cancer.csv"],
        header=False,
        skip_rows=1,
        columns=[*INPUTS, "benign"],
        label="benign",
        test=settings.test,
    )
