"""The package reads no clock, opens nothing, draws from no seeded generator, imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedsec.secagg

MODULES = sorted(Path(fedsec.secagg.__file__).parent.glob("*.py"))
FORBIDDEN = {"asyncio", "flwr", "grpc", "pathlib", "pickle", "random", "socket", "time", "torch"}


def test_importing_it_imports_nothing_heavy() -> None:
    names = [f"fedsec.secagg.{path.stem}" for path in MODULES if path.stem != "__init__"]
    code = f"import sys, {', '.join(names)}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert set(names) <= loaded
    assert not loaded & {"torch", "flwr", "grpc", "sqlalchemy", "asyncio", "scipy"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_opens_anything_reads_a_clock_or_draws_from_a_seeded_generator(
    path: Path,
) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                assert not {alias.name.partition(".")[0] for alias in names} & FORBIDDEN
            case ast.ImportFrom(module=str() as module):
                assert module.partition(".")[0] not in FORBIDDEN
            case ast.Attribute(attr=attribute):
                assert attribute not in {"now", "utcnow", "today", "urandom", "random"}
            case ast.Name(id=name):
                assert name not in {"open", "print", "input", "eval", "exec"}
            case ast.Assert():
                pytest.fail("a check that -O removes is no check")
