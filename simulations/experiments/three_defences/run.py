"""Computes the map of three defences, cell by cell; draws it when asked to.

    python simulations/experiments/three_defences/run.py [--seconds S] [--only WORDS]
    python simulations/experiments/three_defences/run.py --draw

Cells that stand in the file already are not computed again: stop it when you like, start it again.
Digits of MNIST are looked for in FEDSEC_DATA, else in `shared/data` beside the repository; without
them their cells stay out.
"""

import argparse
import time
from pathlib import Path

from fedsec.errors import ConfigError
from fedsec_sim.three_defences.cell import Cell
from fedsec_sim.three_defences.grid import cells
from fedsec_sim.three_defences.recipes import SEED
from fedsec_sim.three_defences.results import MEASURED, add, read
from fedsec_sim.three_defences.running import run
from fedsec_sim.three_defences.tables import tables

HERE = Path(__file__).parent


def compute(path: Path, seconds: float, only: str) -> int:
    """Computes cells with `only` in their line until the time is up; returns how many were done."""
    end, done = time.monotonic() + seconds, 0
    missing: set[str] = set()
    for cell in cells():
        if cell.refused or cell.data in missing or only not in line(cell):
            continue
        if cell.key in read(path).outcomes:  # each time: others may be computing, too
            continue
        if time.monotonic() > end:
            break
        started = time.monotonic()
        try:
            outcome = run(cell)
        except ConfigError as error:
            print(f"{cell.key}: {error}", flush=True)
            if "FEDSEC_DATA" in str(error):
                missing.add(cell.data)
            continue
        add(path, cell, outcome)
        done += 1
        print(
            f"{line(cell)}  {outcome.accuracy:.4f}  {time.monotonic() - started:.1f} s", flush=True
        )
    return done


def line(cell: Cell) -> str:
    """Returns a cell in a few words."""
    noise = "no noise" if cell.epsilon is None else f"epsilon {cell.epsilon:g}"
    attack = f"{cell.hostile} x{cell.factor} {cell.placement}" if cell.hostile else "no attack"
    how = cell.recipe if cell.seed == SEED else f"{cell.recipe} seed={cell.seed}"
    return f"{cell.data} n={cell.nodes} g={cell.size} {cell.combined} {noise} {attack} {how}"


def main() -> None:
    """Runs the command."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    words.add_argument("--only", default="", help='cells that say so, e.g. "n=1000 g=5"')
    words.add_argument("--file", type=Path, default=MEASURED, help="where results are kept")
    words.add_argument("--draw", action="store_true", help="draw what is there, compute nothing")
    given = words.parse_args()
    if not given.draw:
        print(f"{compute(given.file, given.seconds, given.only)} cells computed", flush=True)
        return
    from fedsec_sim.three_defences.pictures import draw  # noqa: PLC0415 - matplotlib takes a second

    measured = read(given.file)
    for made in draw(measured, HERE):
        print(made)
    (HERE / "tables.md").write_text(tables(measured), encoding="utf-8")
    print(HERE / "tables.md")


if __name__ == "__main__":
    main()
