"""How a Flower app is found, configured, checked and loaded.

An app is loaded from its directory, or from the environment, and never changed: nothing is written
into its directory, no byte code either. An app that imports Flower's own launcher is refused.
`flwr.simulation` under `if __name__ == "__main__"` is fine, for there nobody reaches it from here.
"""

import ast
import importlib.util
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedsec.errors import ConfigError

# What belongs to Flower's launcher: bundles (FAB), `flwr run`, and the engines that they start.
_LAUNCHER = (
    "flwr.cli",
    "flwr.common.config.get_fab_config",
    "flwr.common.config.get_fused_config_from_fab",
    "flwr.proto.fab_pb2",
    "flwr.server.run_serverapp",
    "flwr.server.superlink",
    "flwr.simulation",
    "flwr.supercore.fab",
    "flwr.supercore.superexec",
    "flwr.supercore.task_process",
    "flwr.superlink",
    "flwr.supernode",
)
_App = TypeVar("_App", ServerApp, ClientApp)

_NEVER_TRUE = {
    "__name__ == '__main__'",
    "'__main__' == __name__",
    "TYPE_CHECKING",
    "typing.TYPE_CHECKING",
}


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What ``[tool.flwr.app]`` in an app's pyproject.toml says.

    Args:
        server_ref, client_ref: ``module:attribute`` of the two apps.
        config: Defaults of `Context.run_config`; nested tables are joined by dots.
    """

    server_ref: str
    client_ref: str
    config: UserConfig


def app_settings(directory: Path) -> AppSettings:
    """Returns what the pyproject.toml of a Flower app says.

    Raises:
        ConfigError: There is none, or it lacks the apps, or its config is not flat enough.
    """
    path = directory / "pyproject.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{directory} is no Flower app: it has no pyproject.toml") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    app: object = tables
    for key in ("tool", "flwr", "app"):
        app = app.get(key) if isinstance(app, dict) else None
    if not isinstance(app, dict):
        raise ConfigError(f"{path} describes no Flower app: it has no table [tool.flwr.app]")
    components = app.get("components")
    refs = []
    for key in ("serverapp", "clientapp"):
        ref = components.get(key) if isinstance(components, dict) else None
        if not isinstance(ref, str) or ref.count(":") != 1:
            raise ConfigError(
                f'{path}: [tool.flwr.app.components] {key} must be "module:attribute", got {ref!r}'
            )
        refs.append(ref)
    config = app.get("config", {})
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: [tool.flwr.app] config must be a table, got {config!r}")
    return AppSettings(refs[0], refs[1], flatten_config(config))


def flatten_config(nested: Mapping[str, object], prefix: str = "") -> UserConfig:
    """Returns `nested` in Flower's flat form: the keys of tables are joined by dots.

    Raises:
        ConfigError: A value is none of bool, int, float, str or a table of these.

    >>> flatten_config({"lr": 0.1, "model": {"depth": 3}})
    {'lr': 0.1, 'model.depth': 3}
    """
    flat: UserConfig = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten_config(value, f"{name}."))
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        else:
            raise ConfigError(
                f"run config {name} must be text, a number, a truth value or a table of these, "
                f"got {type(value).__name__}"
            )
    return flat


def merge_config(defaults: UserConfig, overrides: Mapping[str, object]) -> UserConfig:
    """Returns `defaults` with `overrides` (nested or flat) put over them.

    A whole number may stand where the default is a real.

    Raises:
        ConfigError: A key that the app does not have, or a value of another type than its default.

    >>> merge_config({"lr": 0.1, "rounds": 3}, {"rounds": 5})
    {'lr': 0.1, 'rounds': 5}
    """
    merged = dict(defaults)
    for key, given in flatten_config(overrides).items():
        if key not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            raise ConfigError(f"the app has no run config {key!r}; it has: {known}")
        wanted = type(defaults[key])
        value = float(given) if wanted is float and type(given) is int else given
        if type(value) is not wanted:
            raise ConfigError(
                f"run config {key} must be {wanted.__name__} as its default {defaults[key]!r}, "
                f"got {value!r}"
            )
        merged[key] = value
    return merged


def load_server_app(ref: str, directory: Path | None = None) -> ServerApp:
    """Returns the ServerApp at `ref` ("module:attribute"), in `directory` or in the environment.

    Importing an app runs its code. After one from a directory, this process writes no byte code.

    Raises:
        ConfigError: It is not there, is something else, cannot be imported, or is refused by
            `check_app_sources`.
    """
    return _load(ref, directory, ServerApp)


def load_client_app(ref: str, directory: Path | None = None) -> ClientApp:
    """Returns the ClientApp at `ref`; otherwise as `load_server_app`."""
    return _load(ref, directory, ClientApp)


def check_app_sources(directory: Path, *refs: str, package: str = "") -> None:
    """Checks that an app leaves Flower's launcher alone, without running it.

    Reads the modules in `directory`, or of `package` in it, that `refs` ("module:attribute") reach
    by imports. A convenience for the operator, no barrier: the code was installed to be run.

    Raises:
        ConfigError: One sentence with file and line: of the import, or of what is no Python.
    """
    to_do = [ref.partition(":")[0] for ref in refs]
    seen: set[Path] = set()
    while to_do:
        for path, parent in _files(directory, to_do.pop()):
            if path in seen:
                continue
            seen.add(path)
            for line, module in _imports(path, parent):
                if _is_launcher(module):
                    raise ConfigError(
                        f"{path}, line {line}: the app imports {module}, which belongs to Flower's "
                        f"own launcher (FAB, `flwr run`); fedsec starts the app itself, so remove "
                        f'the import or put it under `if __name__ == "__main__"`'
                    )
                if package in {"", module.partition(".")[0]}:
                    to_do.append(module)


def _load(ref: str, directory: Path | None, kind: type[_App]) -> _App:
    name, _, attributes = ref.partition(":")
    if not name or not attributes:
        raise ConfigError(f'an app is named by "module:attribute", got {ref!r}')
    if directory is not None:
        directory = directory.resolve()
        check_app_sources(directory, ref)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for processes that the app starts
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))
    try:
        if directory is None:
            _check_installed(ref, name.partition(".")[0])
        found: object = importlib.import_module(name)
        _check_origin(found, directory)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except ConfigError:
        raise
    except Exception as error:
        where = f" in {directory}" if directory else ""
        raise ConfigError(
            f"the app {ref}{where} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, kind):
        raise ConfigError(f"{ref} must be a flwr {kind.__name__}, got {type(found).__name__}")
    return found


def _check_installed(ref: str, package: str) -> None:
    if (spec := importlib.util.find_spec(package)) and spec.origin:
        directory = Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]
        check_app_sources(directory, ref, package=package)


def _check_origin(module: object, directory: Path | None) -> None:
    """Checks that a module is the app's own and no other one of the same name."""
    origin = getattr(module, "__file__", None)
    if directory is None or (origin and Path(origin).resolve().is_relative_to(directory)):
        return
    raise ConfigError(
        f"the app's module {getattr(module, '__name__', '?')} came from {origin}, not from "
        f"{directory}: rename it, for another one of this name is in use"
    )


def _is_launcher(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in _LAUNCHER)


def _files(directory: Path, module: str) -> Iterator[tuple[Path, str]]:
    """Yields each file in `directory` that importing `module` runs, with its package."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1 if all(map(str.isidentifier, parts)) else 0):
        stem = directory.joinpath(*parts[:end])
        if (stem / "__init__.py").is_file():
            yield stem / "__init__.py", ".".join(parts[:end])
        elif stem.with_suffix(".py").is_file():
            yield stem.with_suffix(".py"), ".".join(parts[: end - 1])


def _imports(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """Yields line and name of each module that the file imports or may import."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ConfigError(f"{path}, line {line}: this is no Python: {error}") from error
    nodes = list(_reached(tree))
    flower = {"flwr"}  # the names under which the file knows the package
    for node in nodes:
        if isinstance(node, ast.Import):
            flower |= {name.asname for name in node.names if name.name == "flwr" and name.asname}
    for node in nodes:
        for module in _modules(node, package, flower):
            yield getattr(node, "lineno", 1), module


def _modules(node: ast.AST, package: str, flower: set[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = package.split(".")
            base = parents[: len(parents) - level + 1] if level and package else []
            stem = [*base, *([module] if module else [])]
            yield ".".join(stem)
            yield from (".".join([*stem, name.name]) for name in names)
        case ast.Attribute():  # `import flwr as fl` and then `fl.simulation`
            root, *rest = _dotted(node)
            if root in flower:
                yield ".".join(["flwr", *rest])
        case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]):
            if _dotted(function)[-1] in {"import_module", "__import__"}:
                yield module


def _dotted(node: ast.expr) -> list[str]:
    """Returns ["a", "b", "c"] for `a.b.c`; the first is empty where it is no plain name."""
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _reached(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that importing the file can reach: none for the type checker or a script."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in _NEVER_TRUE:
            yield from (inner for other in node.orelse for inner in (other, *_reached(other)))
        else:
            yield node
            yield from _reached(node)
