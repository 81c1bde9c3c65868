"""`fedsec node check`: is a node's directory in order? No connection is made."""

import importlib.util
from datetime import datetime
from pathlib import Path

from fedsec.data.files import anchored, named_files
from fedsec.data.settings import CONNECTORS, READERS, read_settings
from fedsec.errors import ConfigError, FedsecError
from fedsec.files import check_private_directory
from fedsec.plan import BUILT_IN_APP
from fedsec_client.enrolment import Enrolment
from fedsec_client.findings import Finding, State
from fedsec_client.rosters import ROSTER, held_roster
from fedsec_client.settings import App, NodeSettings
from fedsec_client.site import app_directory


def check_directory(directory: Path, *, now: datetime) -> list[Finding]:
    """Returns what was looked at: the settings, apps and data, the identity and its files.

    Args:
        directory: Of the node.
        now: Aware time.
    """
    return [*check_settings(directory), *check_identity(directory, now=now)]


def check_settings(directory: Path) -> list[Finding]:
    """Returns whether `node.toml` is valid, its apps are there, and something can be trained."""
    try:
        settings = NodeSettings.load(directory)
    except ConfigError as error:
        return [Finding("settings", State.FAILED, "settings", str(error), "Mend the file.")]
    found = [Finding("settings", State.OK, detail="node.toml is valid")]
    for name, app in settings.apps.items():
        try:
            found.append(Finding(f"app {name}", State.OK, detail=_check_app(app, directory)))
        except ConfigError as error:
            advice = "Install the app, or remove its table."
            found.append(Finding(f"app {name}", State.FAILED, "app", str(error), advice))
    unused = sorted(set(settings.apps) - set(settings.policy.allowed_apps))
    if unused:
        detail = f"not in policy.allowed_apps: {', '.join(unused)}"
        found.append(Finding("apps", State.NOTE, detail=detail))
    return [*found, *_data(settings, directory)]


def check_identity(directory: Path, *, now: datetime) -> list[Finding]:
    """Returns whether keys and certificates are there, fit each other, and are closed to others."""
    try:
        check_private_directory(directory)
        enrolment = Enrolment.load(directory)
        enrolment.check(now=enrolment.principal.not_before)
    except FedsecError as error:
        advice = "Mend that; if files are lost, ask for a new invite and join again."
        return [Finding("identity", State.FAILED, "identity", str(error), advice)]
    record = enrolment.record
    detail = f"node {record.name}, signing key {enrolment.signing_fingerprint}"
    found = [Finding("identity", State.OK, detail=detail)]
    if not record.root_pinned:
        detail = "root not pinned: the root's fingerprint was not given at `fedsec node join`"
        found.append(Finding("root", State.NOTE, detail=detail))
    return [*found, certificate_finding(enrolment, now=now), *_roster(enrolment, now=now)]


def certificate_finding(enrolment: Enrolment, *, now: datetime) -> Finding:
    """Returns what this machine's clock says of the node's certificate."""
    own = enrolment.principal
    if now > own.not_after:
        detail = f"ended at {own.not_after:%Y-%m-%d %H:%M:%S} UTC, by this machine's clock"
        advice = "Ask the coordinator's operator for a new invite and join again."
        return Finding("certificate", State.FAILED, "expired", detail, advice)
    if now < own.not_before:
        detail = f"begins at {own.not_before:%Y-%m-%d %H:%M:%S} UTC, by this machine's clock"
        return Finding("certificate", State.FAILED, "clock", detail, "Set this machine's clock.")
    detail = f"valid until {own.not_after:%Y-%m-%d %H:%M:%S} UTC"
    return Finding("certificate", State.OK, detail=detail)


def _roster(enrolment: Enrolment, *, now: datetime) -> list[Finding]:
    """Returns by which roster the node goes in secure sums; nothing if it has never had one."""
    try:
        roster = held_roster(enrolment.directory, enrolment.root_pem)
    except FedsecError as error:
        path = enrolment.directory / ROSTER
        advice = f"Find out why. Without {path} the node believes the next roster, even an old one."
        return [Finding("roster", State.FAILED, "roster", str(error), advice)]
    if roster is None:
        return []
    detail = (
        f"serial {roster.serial}, {len(roster.members)} nodes, until "
        f"{roster.not_after:%Y-%m-%d %H:%M:%S} UTC"
    )
    state = State.OK if now <= roster.not_after else State.NOTE
    return [Finding("roster", state, detail=detail)]


def _check_app(app: App, directory: Path) -> str:
    """Returns where an app was found.

    Raises:
        ConfigError: It cannot be found.
    """
    if app.directory is not None:
        path = app_directory(app.directory, directory)
        if not (path / "pyproject.toml").is_file():
            raise ConfigError(f"{path} is no Flower app: it has no pyproject.toml")
        return str(path)
    module = (app.client or "").partition(":")[0]
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise ConfigError(f"Python finds no module {module} here")
    return str(app.client)


def _data(settings: NodeSettings, directory: Path) -> list[Finding]:
    """Returns what can be said of data sets without reading them."""
    if settings.data:
        found = [_data_set(name, settings, directory) for name in sorted(settings.data)]
        return [*found, *_unused(settings)]
    if settings.policy.allowed_apps == [BUILT_IN_APP]:
        detail = "node.toml names no data set, so this node refuses every plan"
        return [Finding("data", State.NOTE, detail=detail, advice="Add a table [data.NAME].")]
    return [Finding("data", State.NOTE, detail="node.toml names no data set")]


def _data_set(name: str, settings: NodeSettings, directory: Path) -> Finding:
    check, data = f"data {name}", settings.data[name]
    own = [task for task in settings.policy.allowed_tasks if ":" in task]
    if data.connector == "digits":
        return Finding(check, State.OK, detail="scikit-learn's handwritten digits")
    if data.connector not in CONNECTORS and own:
        detail = f'connector "{data.connector}" is not looked at: it is for {", ".join(own)}'
        return Finding(check, State.NOTE, detail=detail)
    try:
        files = named_files(read_settings(anchored(data.options, directory)))
    except ConfigError as error:
        advice = f"Mend the table [data.{name}] in node.toml, or the files."
        return Finding(check, State.FAILED, "data", f"[data.{name}] {error}", advice)
    count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    detail = f"{data.connector}, {count} there" if files else data.connector
    advice = f"`fedsec node data check {name}` reads them." if files else ""
    return Finding(check, State.OK, detail=detail, advice=advice)


def _unused(settings: NodeSettings) -> list[Finding]:
    """Returns a note if no task is allowed that could read one of the data sets."""
    allowed = settings.policy.allowed_tasks
    needed = {
        READERS[each.connector] for each in settings.data.values() if each.connector in READERS
    }
    lacking = sorted(needed - set(allowed))
    if not lacking or any(":" in task for task in allowed):
        return []
    detail = f"policy.allowed_tasks lacks {', '.join(lacking)}, so plans with it are refused"
    return [Finding("tasks", State.NOTE, detail=detail, advice="Add it if you agree to it.")]
