"""What both sides of a secure sum make for themselves from the plan."""

from fedsec.errors import ConfigError
from fedsec.flower.messages import Heading
from fedsec.flower.sums import SumForm
from fedsec.plan import FederationPlan
from fedsec.plan.secure_aggregation import parameters
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Mode
from fedsec.secagg.session import Session

RUN_IDS = 2**64


def make_setting(plan: FederationPlan, form: SumForm, run_id: int, heading: Heading) -> Setting:
    """Returns the setting of one attempt's sum.

    Args:
        plan: With secure aggregation.
        form: Of the vectors.
        run_id: Of the run.
        heading: Round and attempt.

    Raises:
        ConfigError: The plan has no secure aggregation.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    session = Session(
        plan=bytes.fromhex(plan.digest),
        run=run_id % RUN_IDS,
        round=heading.round,
        attempt=heading.attempt,
        words=form.length,
        word_bits=form.word_bits,
        malicious=Mode(section.mode) is Mode.MALICIOUS,
    )
    smallest = parameters(plan, plan.smallest_cohort).least  # a Flower app has no quorum
    quorum = plan.nodes.quorum if plan.built_in else smallest
    return Setting(session, section.assumptions(plan.round.attempts), quorum, section.max_nodes)
