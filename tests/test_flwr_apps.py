"""Flower apps: their settings, their sources, and how they are loaded without a trace."""

import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedsec import flwr_apps
from fedsec.errors import ConfigError
from fedsec.flwr_apps import AppSettings


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives back what an app's loading changes for the process."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "anapp"]:
        del sys.modules[name]


PYPROJECT = """
[project]
name = "anapp"
version = "1.0"
[tool.flwr.app]
publisher = "someone"
[tool.flwr.app.components]
serverapp = "anapp.server:app"
clientapp = "anapp.client:wrapped.app"
[tool.flwr.app.config]
rounds = 3
lr = 0.1
fast = true
name = "net"
model.depth = 2
"""

CLIENT = """
from flwr.app import Message
from flwr.clientapp import ClientApp
from anapp.shared import HELPER

class wrapped:
    app = ClientApp()

@wrapped.app.train()
def train(message, context):
    return Message(message.content, reply_to=message)
"""

SERVER = """
from flwr.serverapp import ServerApp
from . import shared
app = ServerApp()
"""


def write_app(directory: Path, **files: str) -> Path:
    contents = {"pyproject.toml": PYPROJECT, "anapp/__init__.py": "", "anapp/client.py": CLIENT}
    contents |= {"anapp/server.py": SERVER, "anapp/shared.py": "HELPER = 1\n"}
    contents |= {f"anapp/{name}.py": text for name, text in files.items() if name != "pyproject"}
    if "pyproject" in files:
        contents["pyproject.toml"] = files["pyproject"]
    for name, text in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return directory


def digest_of(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_an_apps_settings_are_read(tmp_path: Path) -> None:
    assert flwr_apps.app_settings(write_app(tmp_path)) == AppSettings(
        "anapp.server:app",
        "anapp.client:wrapped.app",
        {"rounds": 3, "lr": 0.1, "fast": True, "name": "net", "model.depth": 2},
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is no Flower app: it has no pyproject.toml"),
        ("[tool", "cannot be read"),
        ("\xff", "describes no Flower app|cannot be read"),
        ("", r"has no table \[tool.flwr.app\]"),
        ("tool = 3", r"has no table \[tool.flwr.app\]"),
        ("[tool.flwr.app]", 'serverapp must be "module:attribute", got None'),
        (PYPROJECT.replace('"anapp.server:app"', "3"), "serverapp must be .* got 3"),
        (PYPROJECT.replace("server:app", "server"), "serverapp must be .* got 'anapp.server'"),
        (PYPROJECT.replace("clientapp", "other"), "clientapp must be .* got None"),
        (PYPROJECT.replace("rounds = 3", "rounds = [3]"), "config rounds must be .* got list"),
        (PYPROJECT.replace("model.depth = 2", "model.date = 2020-01-01"), "config model.date must"),
        (
            PYPROJECT.partition("[tool.flwr.app.config]")[0].replace(
                'publisher = "someone"', "config = 3"
            ),
            "config must be a table, got 3",
        ),
    ],
)
def test_a_bad_pyproject_gets_a_sentence(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        flwr_apps.app_settings(tmp_path)


def test_overrides_replace_defaults() -> None:
    defaults = {"rounds": 3, "lr": 0.1, "fast": True, "model.depth": 2}
    merged = flwr_apps.merge_config(
        defaults, {"lr": 1, "model": {"depth": 5}, "fast": False, "rounds": 4}
    )
    assert merged == {"rounds": 4, "lr": 1.0, "fast": False, "model.depth": 5}
    assert isinstance(merged["lr"], float)
    assert defaults["rounds"] == 3
    assert flwr_apps.merge_config(defaults, {}) == defaults


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"rate": 1}, "has no run config 'rate'; it has: fast, lr, rounds"),
        ({"lr": {"x": 1}}, "has no run config 'lr.x'"),
        ({"rounds": 2.5}, "rounds must be int as its default 3, got 2.5"),
        ({"rounds": True}, "rounds must be int as its default 3, got True"),
        ({"rounds": "3"}, "rounds must be int as its default 3, got '3'"),
        ({"lr": True}, "lr must be float as its default 0.1, got True"),
        ({"fast": 1}, "fast must be bool as its default True, got 1"),
        ({"lr": None}, "lr must be text, a number, .* got NoneType"),
    ],
)
def test_a_bad_override_gets_a_sentence(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        flwr_apps.merge_config({"rounds": 3, "lr": 0.1, "fast": True}, overrides)


def test_an_app_is_loaded_and_its_directory_left_as_it_was(tmp_path: Path) -> None:
    """In a process of its own, as a worker is, with a program started by the app."""
    more = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import anapp.shared'])\n"
    before = digest_of(write_app(tmp_path, server=SERVER + more))
    program = (
        "import pathlib, sys\n"
        "from flwr.app import RecordDict\n"
        "from fedsec.flwr_apps import *\n"
        "from fedsec.flwr_compat import *\n"
        "directory = pathlib.Path(sys.argv[1])\n"
        "settings = app_settings(directory)\n"
        "client = load_client_app(settings.client_ref, directory)\n"
        "server = load_server_app(settings.server_ref, directory)\n"
        "envelope = Envelope('a' * 32, '', 7, 1, 5, '', 1.7e9, 60.0, 'train')\n"
        "answer = client(make_message(envelope, RecordDict()), None)\n"
        "print(type(server).__name__, answer.metadata.reply_to_message_id)\n"
    )
    here = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(tmp_path)])}
    environment.pop("PYTHONDONTWRITEBYTECODE")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"ServerApp {'a' * 32}\n"
    assert digest_of(tmp_path) == before
    assert not list(tmp_path.rglob("__pycache__"))


def test_an_installed_app_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(write_app(tmp_path)))
    assert isinstance(flwr_apps.load_client_app("anapp.client:wrapped.app"), ClientApp)
    assert isinstance(flwr_apps.load_server_app("anapp.server:app"), ServerApp)
    assert not sys.dont_write_bytecode  # nobody's directory is to be left as it is


def test_an_installed_app_is_checked_within_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_app(tmp_path, shared="import beside\nHELPER = 1\n")
    (tmp_path / "beside.py").write_text("if len('') > 0:\n    import flwr.cli\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(flwr_apps.load_client_app("anapp.client:wrapped.app"), ClientApp)
    with pytest.raises(ConfigError, match=r"beside\.py, line 2: the app imports flwr.cli"):
        flwr_apps.load_client_app("beside:app")
    with pytest.raises(ConfigError, match="cannot be loaded: ModuleNotFoundError"):
        flwr_apps.load_client_app("nowhere:app")


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("anapp.client", 'an app is named by "module:attribute"'),
        (":app", 'an app is named by "module:attribute"'),
        ("anapp.missing:app", "cannot be loaded: ModuleNotFoundError"),
        ("anapp.client:missing", "cannot be loaded: AttributeError"),
        ("anapp.shared:HELPER", "must be a flwr ClientApp, got int"),
        ("anapp.server:app", "must be a flwr ClientApp, got ServerApp"),
        ("anapp.broken:app", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_an_app_that_cannot_be_loaded_gets_a_sentence(ref: str, says: str, tmp_path: Path) -> None:
    write_app(tmp_path, broken="1 / 0\n")
    with pytest.raises(ConfigError, match=says):
        flwr_apps.load_client_app(ref, tmp_path)


def test_a_client_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a flwr ServerApp, got ClientApp"):
        flwr_apps.load_server_app("anapp.client:wrapped.app", write_app(tmp_path))


def test_a_module_of_the_same_name_is_not_taken_for_the_apps(tmp_path: Path) -> None:
    (tmp_path / "textwrap.py").write_text("app = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"module textwrap came from .*, not from .*: rename it"):
        flwr_apps.load_client_app("textwrap:app", tmp_path)


REFUSED: dict[str, tuple[str, int, str]] = {
    "from": ("from flwr.cli.build import build\n", 1, "flwr.cli.build"),
    "import": ("import os\nimport flwr.superlink.main\n", 2, "flwr.superlink.main"),
    "as": ("import flwr.simulation as sim\n", 1, "flwr.simulation"),
    "name": ("from flwr import simulation\n", 1, "flwr.simulation"),
    "star": ("from flwr.simulation import *\n", 1, "flwr.simulation"),
    "fab": ("from flwr.supercore.fab import Fab\n", 1, "flwr.supercore.fab"),
    "fab config": (
        "from flwr.common.config import get_fab_config\n",
        1,
        "flwr.common.config.get_fab_config",
    ),
    "function": ("def f():\n    import flwr.supernode\n", 2, "flwr.supernode"),
    "attribute": ("import flwr as fl\n\nfl.simulation.run_simulation()\n", 3, "flwr.simulation"),
    "try": ("try:\n    import flwr.cli\nexcept ImportError:\n    pass\n", 2, "flwr.cli"),
    "importlib": ("import importlib\nimportlib.import_module('flwr.cli.run')\n", 2, "flwr.cli.run"),
    "dunder": ("__import__('flwr.cli')\n", 1, "flwr.cli"),
    "else of main": (
        "if __name__ == '__main__':\n    pass\nelse:\n    import flwr.cli\n",
        4,
        "flwr.cli",
    ),
    "nested in a class": ("class A:\n    from flwr.cli import app\n", 2, "flwr.cli"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_app_that_imports_flowers_launcher_is_refused(name: str, tmp_path: Path) -> None:
    text, line, module = REFUSED[name]
    write_app(tmp_path, shared="HELPER = 1\n", client="from . import deep\n" + CLIENT, deep=text)
    before = digest_of(tmp_path)
    with pytest.raises(ConfigError) as caught:
        flwr_apps.load_client_app("anapp.client:wrapped.app", tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path}/anapp/deep.py, line {line}: the app imports {module}")
    assert "\n" not in sentence
    assert "anapp" not in sys.modules, "the app ran"
    assert digest_of(tmp_path) == before


ALLOWED = {
    "script": "if __name__ == '__main__':\n    from flwr.simulation import run_simulation\n",
    "script, the other way": "if '__main__' == __name__:\n    import flwr.cli\n",
    "types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flwr.cli\n",
    "public": "import flwr as fl\nfrom flwr.common import ndarrays_to_parameters\nfl.client\n",
    "config helper": "from flwr.common.config import unflatten_dict\n",
    "other names": "import flwrcli\nfrom flwr_cli import x\nsimulation = 1\nsimulation.real\n",
    "text": "print('import flwr.cli')\n",
    "import of a variable": "import importlib\nname = 'os'\nimportlib.import_module(name)\n",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_an_app_that_leaves_the_launcher_alone_is_let_pass(name: str, tmp_path: Path) -> None:
    write_app(tmp_path, shared=ALLOWED[name])
    flwr_apps.check_app_sources(tmp_path, "anapp.client:wrapped.app", "anapp.server:app")


def test_only_what_the_app_imports_is_read(tmp_path: Path) -> None:
    write_app(tmp_path, run_it="from flwr.simulation import run_simulation\n", junk="no python\n")
    flwr_apps.check_app_sources(tmp_path, "anapp.client:wrapped.app", "anapp.server:app")
    with pytest.raises(ConfigError, match=r"run_it\.py, line 1"):
        flwr_apps.check_app_sources(tmp_path, "anapp.run_it:app")


@pytest.mark.parametrize(
    ("importing", "found"),
    [
        ("from .other import x", True),
        ("from . import other", True),
        ("from ..pack import other", True),
        ("from ..pack.other import x", True),
        ("import pack.other", True),
        ("from pack import other as o", True),
        ("from .. import pack2", False),
        ("from .nothing import other", False),
    ],
)
def test_relative_imports_are_followed(importing: str, *, found: bool, tmp_path: Path) -> None:
    files = {"pack/__init__.py": "", "pack/main.py": importing, "pack/other.py": "import flwr.cli"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def check() -> None:
        flwr_apps.check_app_sources(tmp_path, "pack.main:app")

    if not found:
        check()
        return
    with pytest.raises(ConfigError, match=r"pack/other\.py, line 1"):
        check()


def test_a_package_runs_its_init(tmp_path: Path) -> None:
    write_app(tmp_path)
    (tmp_path / "anapp" / "__init__.py").write_text("\nimport flwr.cli\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"__init__.py, line 2"):
        flwr_apps.check_app_sources(tmp_path, "anapp.client:wrapped.app")


def test_imports_in_a_circle_end(tmp_path: Path) -> None:
    write_app(tmp_path, shared="from . import client, server, shared\n")
    flwr_apps.check_app_sources(tmp_path, "anapp.client:wrapped.app")


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'\n"])
def test_what_is_no_python_is_named(text: str, tmp_path: Path) -> None:
    write_app(tmp_path, shared="\n" + text)
    with pytest.raises(ConfigError, match=r"shared.py, line \d: this is no Python"):
        flwr_apps.check_app_sources(tmp_path, "anapp.client:wrapped.app")


@pytest.mark.parametrize("ref", ["../secret:app", "/etc/x:app", "a..b:app", ".:app", ":", ""])
def test_a_reference_cannot_leave_the_directory(ref: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.py").write_text("import flwr.cli", encoding="utf-8")
    flwr_apps.check_app_sources(inside, ref)
    with pytest.raises(ConfigError):
        flwr_apps.load_client_app(ref, inside)
