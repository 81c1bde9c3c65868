"""The package reads no clock, opens nothing and brings nothing heavy into a process."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedsec.identity

MODULES = sorted(Path(fedsec.identity.__file__).parent.glob("*.py"))
FORBIDDEN = {
    "asyncio",
    "flwr",
    "grpc",
    "os",
    "pathlib",
    "socket",
    "sqlalchemy",
    "ssl",
    "time",
    "torch",
}


def test_importing_it_imports_nothing_heavy() -> None:
    names = [f"fedsec.identity.{path.stem}" for path in MODULES if path.stem != "__init__"]
    code = f"import sys, {', '.join(names)}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert set(names) <= loaded
    assert not loaded & {"torch", "flwr", "grpc", "sqlalchemy", "numpy", "asyncio", "ssl"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_opens_anything_or_reads_a_clock(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                assert not {alias.name.partition(".")[0] for alias in names} & FORBIDDEN
            case ast.ImportFrom(module=str() as module):
                assert module.partition(".")[0] not in FORBIDDEN
            case ast.Attribute(attr=attribute):
                assert attribute not in {"now", "utcnow", "today"}
            case ast.Name(id=name):
                assert name not in {"open", "print", "input", "eval", "exec"}
