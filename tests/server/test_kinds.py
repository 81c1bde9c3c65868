"""Every kind of event that the coordinator records stands in the table that apps are held to."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fedsec_server
from fedsec_server.kinds import OWN, SHARED, is_own
from fedsec_server.state.values import RunState

SOURCE = Path(fedsec_server.__file__).parent
RECORDERS = {"record", "note", "_note"}
PASSED_ON = {("journal.py", "kind"), ("runs.py", "kind")}  # as their callers say it
OF_ENDS = {f"run-{state.value}" for state in RunState if state.final}


def first_arguments(call: ast.Call) -> Iterator[ast.expr]:
    """Yields what a call gives as the kind of an event, if it records one."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in RECORDERS and call.args:
        yield call.args[0]
    for given, following in zip(call.args, call.args[1:], strict=False):  # to a thread's call
        if isinstance(given, ast.Attribute) and given.attr in RECORDERS:
            yield following


def recorded() -> Iterator[tuple[str, ast.expr]]:
    """Yields the file and the expression of each kind that the coordinator's source records."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for kind in first_arguments(node):
                    yield path.name, kind


def kinds_of(file: str, kind: ast.expr) -> set[str]:
    match kind:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.JoinedStr(values=[ast.Constant(value="run-"), ast.FormattedValue()]):
            return OF_ENDS
    if (file, ast.unparse(kind)) in PASSED_ON:
        return set()
    assert (file, ast.unparse(kind)) == ("ca_keeper.py", "kind"), (file, ast.unparse(kind))
    return set()  # its own method's argument: of which authority


def test_the_table_holds_what_the_source_records_and_nothing_else() -> None:
    found = [kinds_of(file, kind) for file, kind in recorded()]
    assert set().union(*found) == OWN


def test_no_kind_of_the_coordinator_can_be_reported() -> None:
    assert {kind for kind in OWN if not is_own(kind)} == SHARED
    assert all(is_own(kind.upper()) and is_own(f" {kind}") for kind in OWN - SHARED)
    assert not any(map(is_own, ("round", "model", "nodes", "note", "accuracy-at-5")))
