"""The poisoned node of the demo: what takes the place of the honest words, in the worker that it runs."""

import numpy as np
import pytest

from fedsec.encoding import FixedPoint
from fedsec.flower.messages import Metrics
from fedsec.flower.sums import SumForm
from fedsec.privacy.keystream import Keystream
from fedsec_sim import hostile_worker
from fedsec_sim.hostile_worker import TIMES

CLIP, SIZE, MEMBERS = 0.5, 300, 20


def test_a_poisoned_worker_adds_its_update_turned_round_and_far_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SumForm, "encode", SumForm.encode)  # so that it comes back
    monkeypatch.setattr(hostile_worker, "work", lambda: None)
    hostile_worker.main()
    form = SumForm(FixedPoint(SIZE, CLIP, MEMBERS), CLIP, MEMBERS)
    update = np.linspace(-0.01, 0.02, SIZE, dtype=np.float32)
    words = form.encode(update, Metrics(10, {}), Keystream(bytes(32)))
    added = form.encoding.decode(words)
    assert np.linalg.norm(added) == pytest.approx(TIMES * CLIP, rel=1e-3)
    turned = -update / np.linalg.norm(update)
    assert float(added @ turned) == pytest.approx(TIMES * CLIP, rel=1e-3)
