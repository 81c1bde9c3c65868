"""Tensors in, a tensor of the same dtype out; and nothing else imports torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fedsec.robust import Nnm, Pipeline, TrimmedMean
from fedsec.robust.tensors import aggregate_tensors
from tests.robust.cases import rows_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_stays(dtype: torch.dtype) -> None:
    rows = torch.from_numpy(rows_of()).to(dtype)
    kept = rows.clone()
    vector, found = aggregate_tensors(Pipeline(TrimmedMean(2), (Nnm(2),)), rows)
    assert vector.dtype == dtype
    assert torch.equal(rows, kept)
    exact = Pipeline(TrimmedMean(2), (Nnm(2),))(rows.double().numpy()).vector
    np.testing.assert_allclose(vector.double().numpy(), exact, atol=2e-2)
    assert len(found.diagnostics.norms) == 11


def test_options_are_passed_on() -> None:
    rows = torch.full((4, 3), torch.nan)
    rows[:3] = 1.0
    vector, found = aggregate_tensors(TrimmedMean(1), rows.requires_grad_(), unusable="zero")
    assert vector.tolist() == [1.0, 1.0, 1.0]
    assert list(found.diagnostics.excluded) == [3]


def test_rules_and_their_arithmetic_import_no_torch() -> None:
    program = (
        "import sys, numpy as np; from fedsec.robust import Median; Median()(np.ones((3, 2))); "
        "sys.exit(any(name.split('.')[0] in {'torch', 'flwr', 'grpc'} for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_parameters_import_no_arithmetic() -> None:
    program = (
        "import sys; import fedsec.robust as r; r.Pipeline(r.TrimmedMean(1)).check(5); "
        "sys.exit('fedsec.robust.engine' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
