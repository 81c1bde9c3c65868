"""The pages say what was measured, and no script is left out of `make bench`."""

import ast
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_every_script_that_publishes_is_collected() -> None:
    publishing = {
        file.stem
        for file in BENCHMARKS.glob("*.py")
        if file.stem not in {"common", "collect"} and "publish(" in file.read_text("utf-8")
    }
    assert publishing == set(collected())


def test_the_pages_say_what_was_measured() -> None:
    command = [sys.executable, str(BENCHMARKS / "collect.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def collected() -> list[str]:
    tree = ast.parse((BENCHMARKS / "collect.py").read_text("utf-8"))
    [names] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCRIPTS"
    ]
    found: list[str] = ast.literal_eval(names)
    return found
