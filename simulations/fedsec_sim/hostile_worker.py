"""The worker of a poisoned node (see `other_programs`): it trains as asked, and lies in sums.

What it adds is its update turned round and `TIMES` as long as the plan lets any be, without a share
of noise. All else it does by the protocol, so that nobody can tell.
"""

from dataclasses import fields

from fedsec.encoding import Words
from fedsec.flower.messages import Metrics
from fedsec.flower.sums import SumForm
from fedsec.privacy.keystream import Keystream
from fedsec.vectors import Vector
from fedsec_client.worker import main as work
from fedsec_sim.attacks.plain import Reverse
from fedsec_sim.secret_sums import overlong

TIMES = 10
"""How many times longer than the clip."""


class AsPlanned(SumForm):
    """Codes by the plan, whatever has become of the class that it follows."""

    encode = SumForm.encode


def poisoned(form: SumForm, update: Vector, metrics: Metrics, source: Keystream) -> Words:
    """Returns the words (length,) that it adds; takes the place of `SumForm.encode`."""
    planned = AsPlanned(**{each.name: getattr(form, each.name) for each in fields(form)})
    return overlong(planned, Reverse(TIMES * form.clip).turned(update), metrics, source)


def main() -> None:
    """Runs until the agent hangs up."""
    setattr(SumForm, "encode", poisoned)  # noqa: B010 - mypy minds an assignment
    work()


if __name__ == "__main__":
    main()
