"""What both sides of a secure sum make for themselves from the plan."""

from collections.abc import Mapping

from fedsec.errors import ConfigError
from fedsec.flower.messages import Heading
from fedsec.flower.sums import SumForm
from fedsec.plan import FederationPlan
from fedsec.plan.visibility import (
    assumptions,
    fewest_in_a_sum,
    group_size,
    most_in_a_sum,
    most_nodes,
)
from fedsec.secagg.group_messages import Split
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Mode
from fedsec.secagg.session import Session

RUN_IDS = 2**64


def make_setting(
    plan: FederationPlan,
    form: SumForm,
    run_id: int,
    heading: Heading,
    asked: bytes,
    *,
    group: tuple[int, Mapping[int, bytes]] | None = None,
) -> Setting:
    """Returns the setting of one attempt's sum.

    Args:
        plan: With secure aggregation.
        form: Of the vectors.
        run_id: Of the run.
        heading: Round and attempt.
        asked: What the nodes were sent to work on; see `fedsec.flower.asked.digest_of`.
        group: Number and signing keys by id of the group that sums; None: all nodes do.

    Raises:
        ConfigError: The plan has no secure aggregation.
    """
    section = plan.secure_aggregation
    if section is None:
        raise ConfigError("the plan has no [secure_aggregation]")
    number, members = group or (0, None)
    session = Session(
        plan=bytes.fromhex(plan.digest),
        run=run_id % RUN_IDS,
        round=heading.round,
        attempt=heading.attempt,
        words=form.length,
        word_bits=form.word_bits,
        malicious=Mode(section.mode) is Mode.MALICIOUS,
        group=number,
        asked=asked,
    )
    return Setting(session, assumptions(plan), fewest_in_a_sum(plan), most_in_a_sum(plan), members)


def make_split(plan: FederationPlan, run_id: int, heading: Heading) -> Split:
    """Returns what a draw of the plan's groups is about.

    Args:
        plan: With groups.
        run_id: Of the run.
        heading: Of the first round; each of its attempts may draw once.

    Raises:
        ConfigError: The plan has no groups.
    """
    section, size = plan.secure_aggregation, group_size(plan)
    if section is None or size is None:
        raise ConfigError("the plan has no groups")
    return Split(
        plan=bytes.fromhex(plan.digest),
        run=run_id % RUN_IDS,
        draw=heading.attempt,
        size=size,
        malicious=Mode(section.mode) is Mode.MALICIOUS,
        fewest=plan.smallest_cohort,
        most=most_nodes(plan),
    )
