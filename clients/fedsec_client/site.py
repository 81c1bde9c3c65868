"""What a worker is told of its site: the part of `node.toml` that one run needs, as JSON."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fedsec.data.files import anchored
from fedsec.errors import ConfigError
from fedsec.plan import FederationPlan
from fedsec.secagg.parameters import Minima
from fedsec_client.settings import NodeSettings, PrivacyBudget, Scalar

BUILT_IN_CLIENT = "fedsec_client.client_app:app"
PLAN_KEY = "fedsec-plan"  # of run_config, for the built-in app
DATA_KEY = "fedsec-data"  # of node_config, for the built-in app
LEDGER_NAME = "privacy.ledger"  # in the node's directory


class Site(BaseModel):
    """What the agent hands to a worker.

    Args:
        client: ``module:attribute`` of the app; empty where the app's own pyproject.toml says it.
        directory: Of the app; empty for an importable one.
        node_config: For the app.
        max_content_bytes: Largest content of one message.
        memory_mb: What the worker may hold, for messages about it.
        minima: What a round with a secure sum must have, whatever the plan says.
        ledger: Path of the node's privacy ledger.
        budget: Caps on its columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    client: str
    directory: str
    node_config: dict[str, Scalar]
    max_content_bytes: int
    memory_mb: int
    ledger: str
    budget: PrivacyBudget
    minima: Minima = Minima()


def site_of(plan: FederationPlan, settings: NodeSettings, node_directory: Path) -> Site:
    """Returns the site's part of a run whose plan its policy allows.

    Raises:
        ConfigError: The app's directory does not exist.
    """
    client, directory, config = BUILT_IN_CLIENT, "", dict(settings.node_config)
    if plan.built_in:
        task, _ = plan.learning
        options = anchored(settings.data[task.data].options, node_directory)
        config[DATA_KEY] = json.dumps(options, sort_keys=True)
    else:
        app = settings.apps[plan.app.name]
        client = app.client or ""
        if app.directory is not None:
            directory = str(app_directory(app.directory, node_directory))
    return Site(
        client=client,
        directory=directory,
        node_config=config,
        max_content_bytes=settings.limits.max_content_bytes,
        memory_mb=settings.limits.memory_mb,
        minima=settings.policy.minima,
        ledger=str((node_directory / LEDGER_NAME).absolute()),
        budget=settings.policy.budget,
    )


def app_directory(written: str, node_directory: Path) -> Path:
    """Returns the absolute directory of an app, which may be written relative to the node's.

    Raises:
        ConfigError: It does not exist.
    """
    path = (node_directory / written).absolute()
    if not path.is_dir():
        raise ConfigError(f"there is no directory {path}, which node.toml names for an app")
    return path
