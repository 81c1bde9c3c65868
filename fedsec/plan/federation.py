"""The plan as a whole: parsed, checked, printable, and named by a digest."""

import hashlib
import json
from typing import Literal, Self

from pydantic import Field

from fedsec.errors import ConfigError
from fedsec.plan import compat
from fedsec.plan.data import Data
from fedsec.plan.privacy import Privacy, population
from fedsec.plan.reading import list_problems, read_toml
from fedsec.plan.robust import Robust
from fedsec.plan.sections import App, Model, Nodes, Round, Section, Task, Title, Training
from fedsec.plan.secure_aggregation import SecureAggregation
from fedsec.plan.visibility import Visibility

BUILT_IN_APP = "fedsec"
MAX_BYTES = 1 << 18
"""No plan is longer; what is longer is not parsed."""


class FederationPlan(Section):
    """What is learned, by whom and how.

    Made by `parse`. A plan for a Flower app (``app.name`` other than ``"fedsec"``) has neither
    `task` nor `training`; every other plan has both.

    Args:
        schema_version: Of the plan's form; ``schema`` in the file.
        name: For people.
        visibility: What the coordinator sees of a round: ``"each"`` update; with a table
            [secure_aggregation] the sums of ``"groups"`` of nodes, over which a robust rule can
            go, or one ``"sum"``. Left out: each update without that table, one sum with it.
    """

    schema_version: Literal[1] = Field(alias="schema")
    name: Title
    visibility: Visibility | None = None
    app: App = App()
    task: Task | None = None
    data: Data | None = None
    training: Training | None = None
    nodes: Nodes = Nodes.model_validate({})
    round: Round = Round()
    model: Model = Model()
    privacy: Privacy | None = None
    secure_aggregation: SecureAggregation | None = None
    robust: Robust | None = None

    @classmethod
    def parse(cls, toml_text: str, what: str = "the plan") -> "FederationPlan":
        """Returns the plan that `toml_text` describes.

        Args:
            toml_text: What a plan's file holds.
            what: Begins the message of an error, e.g. the file's name.

        Raises:
            ConfigError: Something is wrong; the message lists everything that is, each with key
                path, value and what is allowed.
        """
        return read_toml(cls, toml_text, what=what, max_bytes=MAX_BYTES).checked(what)

    def checked(self, what: str) -> Self:
        """Returns the plan, if all that it combines may be combined.

        Args:
            what: Begins the message.

        Raises:
            ConfigError: It may not; the message lists every reason.
        """
        refused = [f"{refusal.key}: {refusal.reason}" for refusal in compat.refusals(self)]
        if refused:
            raise ConfigError(list_problems(what, refused))
        return self

    @property
    def built_in(self) -> bool:
        """Whether fedsec's own apps run it, rather than a Flower app."""
        return self.app.name == BUILT_IN_APP

    @property
    def learning(self) -> tuple[Task, Training]:
        """What is learned and how.

        Raises:
            ConfigError: The plan is for a Flower app, which decides both for itself.
        """
        if self.task is None or self.training is None:
            raise ConfigError(f"the plan has no task and training: the app is {self.app.name!r}")
        return self.task, self.training

    @property
    def smallest_cohort(self) -> int:
        """How many nodes a round has at least, when it begins."""
        return self.cohort(self.nodes.min_available)

    def cohort(self, ready: int) -> int:
        """Returns how many of `ready` nodes a round draws."""
        drawn = self.nodes.cohort(ready)
        if self.privacy is not None and self.privacy.model in {"central", "distributed"}:
            drawn = min(drawn, population(self))
        section = self.secure_aggregation
        return drawn if section is None else min(drawn, section.max_nodes)

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the plan's canonical JSON, defaults filled in.

        Order, comments and layout of the file do not matter. What is not in the plan is not in the
        JSON either, so that a later section, left out, changes no digest.
        """
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def canonical_json(self) -> str:
        """Returns the plan as JSON: sorted keys, no spaces, no absent values."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
