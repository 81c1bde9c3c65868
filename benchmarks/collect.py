"""Every benchmark, one after the other, and what comes of it: `make bench`.

    python benchmarks/collect.py [--only NAME] [--full]     measures, and writes the three files
    python benchmarks/collect.py --check                    whether the pages say what was measured

Writes benchmarks/results.json (everything), docs/benchmarks.md (every row) and, between its two
marks, the table of README.md (every row that has an aim). A script that does not end leaves no
figures, and is named as one that did not end. With --only the others' figures stay, each with its
own date, versions and load.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count, getloadavg
from pathlib import Path
from textwrap import fill

import aims
from common import Result, ratio_words, shown

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- measured: begin (make bench) -->", "<!-- measured: end -->"
SCRIPTS = (
    "demo",
    "round_latency",
    "bulk",
    "idle",
    "scale",
    "under_attack",
    "robust",
    "noise",
    "private_training",
    "privacy_utility",
    "secagg",
    "secagg_round",
    "simulation",
    "convolutions",
)
PACKAGES = ("torch", "numpy", "flwr", "grpcio", "cryptography")
QUICK_S, FULL_S = 600, 7200  # after which a script is ended
WIDTH = 104  # of a line of text
_LOOK_S = 2.0  # so long the machine is watched before a script starts


@dataclass(frozen=True)
class Measured:
    """What one script has measured.

    Attributes:
        date: Of its end, UTC.
        quick: Whether in its quick form.
        seconds: How long it took.
        load: Processors that other programs kept busy just before it.
        versions: Of Python, this machine and the packages.
        rows: Empty where it did not end.
        failed: Why there are no rows; empty where there are.
    """

    date: str
    quick: bool
    seconds: float
    load: float
    versions: str
    rows: list[Result] = field(default_factory=list)
    failed: str = ""


# --- measuring -----------------------------------------------------------------------------------


def measure(name: str, *, quick: bool) -> Measured:
    """Runs one script and returns what it wrote."""
    load, started = busy(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work:
        file = Path(work) / "rows.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file)]
        limit = QUICK_S if quick else FULL_S
        rows: list[Result] = []
        try:
            done = subprocess.run([*command, *["--quick"] * quick], check=False, timeout=limit)
            failed = f"exit code {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failed = f"not within {limit} s"
        if not failed:
            rows = [Result(**row) for row in json.loads(file.read_text("utf-8"))]
    took = round(time.monotonic() - started, 1)
    return Measured(f"{datetime.now(UTC):%Y-%m-%d}", quick, took, load, versions(), rows, failed)


def busy() -> float:
    """Returns how many processors are busy at present (elsewhere than on Linux: the mean load)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return round(getloadavg()[0], 1)

    def ticks() -> tuple[int, int]:
        _, *all_ticks = stat.read_text("ascii").split("\n", 1)[0].split()
        numbers = [int(each) for each in all_ticks[:8]]
        return sum(numbers), numbers[3] + numbers[4]

    before = ticks()
    time.sleep(_LOOK_S)
    every, idle = (b - a for a, b in zip(before, ticks(), strict=True))
    return round((every - idle) / max(every, 1) * (cpu_count() or 1), 1)


def versions() -> str:
    """Returns what the figures depend on, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{platform.system()} {platform.machine()}, {cpu_count()} cores"
    return f"{machine}; Python {platform.python_version()}, {packages}"


# --- what is kept and shown ----------------------------------------------------------------------


def load_results() -> dict[str, Measured]:
    """Returns what was measured so far, in the order of `SCRIPTS`."""
    if not RESULTS.exists():
        return {}
    kept = json.loads(RESULTS.read_text("utf-8"))
    return {
        name: Measured(**{**kept[name], "rows": [Result(**row) for row in kept[name]["rows"]]})
        for name in SCRIPTS
        if name in kept
    }


def pages(found: dict[str, Measured]) -> dict[Path, str]:
    """Returns the text of every file that shows the results."""
    whole = README.read_text("utf-8")
    before, rest = whole.split(BEGIN)
    _, after = rest.split(END)
    return {
        README: f"{before}{BEGIN}\n{readme_part(found)}{END}{after}",
        PAGE: page(found),
    }


def readme_part(found: dict[str, Measured]) -> str:
    """Returns how it was measured, and the rows that have an aim."""
    rows = [line for name, each in found.items() for line in aimed(name, each.rows)]
    lines = [
        *(fill(words, WIDTH) + "\n" for words in conditions(found)),
        *markdown(("what", ">fedsec", ">beside", ">times better", "aim", "script"), rows),
    ]
    return "\n".join(lines) + "\n"


def aimed(name: str, rows: Iterable[Result]) -> Iterator[tuple[str, ...]]:
    """Yields a line for each row that has an aim; a missed one is marked."""
    for row in rows:
        wanted = [
            aim.words(row) if aim.is_met(row) else f"**missed:** {aim.words(row)}"
            for aim in aims.of(name, row)
        ]
        if wanted:
            yield (*cells(row), ", ".join(wanted), f"`{name}.py`")


def conditions(found: dict[str, Measured]) -> Iterator[str]:
    """Yields a sentence on when and on what, and one on what did not end."""
    dates = sorted({each.date for each in found.values()})
    loads = sorted(f"{each.load:.1f}" for each in found.values())
    quick = [name for name, each in found.items() if each.quick]
    if found:
        form = "Quick forms" if len(quick) == len(found) else f"Quick forms of {listed(quick)}"
        machines = "; ".join(sorted({each.versions for each in found.values()}))
        yield (
            f"{form}, {span_of(dates)}, {machines}. "
            f"Other programs kept {span_of(loads)} cores busy when a script began."
        )
    if left := [name for name in SCRIPTS if name not in found]:
        yield f"Not measured yet: {listed(left)}."
    for name, each in found.items():
        if each.failed:
            yield f"`{name}.py` did not end: {each.failed}."
    if left_out := without_row(found):
        shares = ", ".join(
            f"{count} of `{name}.py` beside {peer}" for (name, peer), count in left_out
        )
        yield f"Aims without a row, as the peer or the size of the aim was not there: {shares}."


def without_row(found: dict[str, Measured]) -> list[tuple[tuple[str, str], int]]:
    """Returns how many aims have no row, by script and peer, of the scripts that were measured."""
    missing = Counter(
        (aim.script, aim.peer.rstrip("*") or "anything")
        for aim in aims.AIMS
        if aim.script in found
        and not found[aim.script].failed
        and not any(aim.is_of(aim.script, row) for row in found[aim.script].rows)
    )
    return sorted(missing.items())


def span_of(values: list[str]) -> str:
    """Returns the first and the last of sorted values, or the only one."""
    return values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def listed(names: Iterable[str]) -> str:
    """Returns scripts by name."""
    return ", ".join(f"`{name}.py`" for name in names)


def page(found: dict[str, Measured]) -> str:
    """Returns docs/benchmarks.md."""
    lines = [
        "# Everything that `make bench` measured",
        "",
        "Written by `benchmarks/collect.py`; the README shows the rows that have an aim. Medians,",
        "of both sides in the same run; above 1 times better is better, whatever the unit.",
    ]
    for name, each in found.items():
        form = "quick form" if each.quick else "full form"
        about = f"In its {form}, {each.date}, {each.seconds:g} s, {each.load} cores busy before it."
        lines += ["", f"## `{name}.py`", "", about, f"On {each.versions}.", ""]
        if each.failed:
            lines.append(f"It did not end: {each.failed}.")
        else:
            columns = ("what", ">fedsec", ">beside", ">times better", ">runs")
            lines += markdown(columns, [(*cells(row), str(row.runs)) for row in each.rows])
    return "\n".join(lines) + "\n"


def cells(row: Result) -> tuple[str, str, str, str]:
    """Returns what, ours, the peer's with its name, and the ratio."""
    peer = f"{shown(row.peer, row.unit)}, {row.peer_name}"
    what = row.case if row.metric != "cpu_time" else f"{row.case} (processor time)"
    return what, shown(row.ours, row.unit), peer, ratio_words(row.ratio)


def markdown(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Returns the lines of a table; a heading that begins with ``>`` is aligned to the right."""
    columns = list(columns)
    rule = "|".join("---:" if each.startswith(">") else "---" for each in columns)
    head = " | ".join(each.removeprefix(">") for each in columns)
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [f"| {head} |", f"|{rule}|", *body]


def main() -> None:
    """Measures and writes, or checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=SCRIPTS, help="not all, but this one")
    parser.add_argument("--full", action="store_true", help="not the quick forms")
    parser.add_argument("--check", action="store_true", help="measure nothing, compare the pages")
    chosen = parser.parse_args()
    found = load_results()
    if chosen.check:
        stale = [
            file.name for file, text in pages(found).items() if file.read_text("utf-8") != text
        ]
        sys.exit(f"not what was measured: {', '.join(stale)}" if stale else 0)
    for name in chosen.only or SCRIPTS:
        print(f"--- {name}.py", flush=True)
        found[name] = measure(name, quick=not chosen.full)
        found = {each: found[each] for each in SCRIPTS if each in found}
        kept = {each: asdict(measured) for each, measured in found.items()}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        for file, text in pages(found).items():
            file.write_text(text, encoding="utf-8")
    if failed := [name for name in chosen.only or SCRIPTS if found[name].failed]:
        sys.exit(f"did not end: {', '.join(failed)}")


if __name__ == "__main__":
    main()
