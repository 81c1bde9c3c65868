"""Sites with files of their own kind train one table together; a site whose file is wrong is named."""

from pathlib import Path

import numpy as np
import pytest

from fedsec_sim.loopback import LoopbackFederation

pytestmark = pytest.mark.slow

PLAN = """
schema = 1
name = "three sites"
[task]
name = "table"
data = "study"
[data]
inputs = ["age", "smokes=yes", "dose"]
classes = 2
scaling = "site"
[training]
rounds = 4
local_epochs = 4
learning_rate = 0.5
[nodes]
min_available = 2
quorum = 2
[round]
reconnect_s = 1
"""

CATEGORIES = 'categories = { smokes = ["no", "yes"] }'
TABLES = (
    f"""
files = "study.csv"
label = "ill"
{CATEGORIES}
""",
    f"""
files = "study.csv"
separator = ";"
decimal = ","
header = false
columns = ["ill", "dose", "smokes", "age"]
label = "ill"
missing = "drop"
missing_markers = ["-9"]
{CATEGORIES}
""",
    f"""
files = "*.csv"
label = "diagnosis"
label_map = {{ healthy = 0, ill = 1 }}
{CATEGORIES}
""",
)


def settings(number: int) -> str:
    return (
        f'schema = 1\n[limits]\nthreads = 1\n[policy]\nallowed_tasks = ["table"]\n'
        f'[data.study]\nconnector = "csv"\n{TABLES[number]}'
    )


def write_files(directory: Path, number: int) -> None:
    """Writes what a site has: the same study in a form of its own."""
    rng = np.random.default_rng(number)
    age, dose = rng.normal(60, 10, 150).round(2), rng.normal(2, 1, 150).round(3)
    smokes = np.where(rng.random(150) < 0.4, "yes", "no")
    ill = (0.1 * (age - 60) + 1.5 * (smokes == "yes") - dose + 1.4 + rng.logistic(size=150) > 0) * 1
    rows = list(zip(age, smokes, dose, ill, strict=True))
    if number == 1:
        lines = [f"{y};{d};{s};{a}".replace(".", ",") for a, s, d, y in rows]
        lines[7] = "1;-9;yes;61,5"
    elif number == 2:
        word = ("healthy", "ill")
        lines = ["smokes,age,dose,diagnosis", *(f"{s},{a},{d},{word[y]}" for a, s, d, y in rows)]
    else:
        lines = ["age,smokes,dose,ill", *(f"{a},{s},{d},{y}" for a, s, d, y in rows)]
    (directory / "study.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_site_whose_file_is_wrong_is_left_out_and_tells_nothing_of_it(tmp_path: Path) -> None:
    with LoopbackFederation(tmp_path / "f", forked=True) as federation:
        for number in range(3):
            node = federation.join(f"site-{number}", settings(number))
            write_files(node.directory, number)
            node.process.start()
        spoilt = federation.nodes["site-1"].directory / "study.csv"
        spoilt.write_text("1;2;maybe;61\n", encoding="utf-8")
        federation.wait_for_nodes(federation.nodes)
        run_id = federation.submit(PLAN)
        federation.wait_for_run(run_id, 110)
        rounds = federation.events(run_id, "round")
        ids = federation.node_ids()
        assert rounds[-1]["evaluated"] == sorted([ids["site-0"], ids["site-2"]])
        assert float(str(rounds[-1]["accuracy"])) > 0.7
        told = " ".join(each.event.detail_json for each in federation.show_run(run_id).event)
        log = (spoilt.parent / "runs" / str(run_id) / "worker.log").read_text("utf-8")
        assert '[data.study] study.csv, row 1, column "smokes": none of' in log
        assert 'its data set \\"study\\" cannot be used; `fedsec node data check study` on' in told
        assert "study.csv" not in told
        assert "maybe" not in told + log
