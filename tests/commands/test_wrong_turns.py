"""The wrong turns of docs/quickstart.md: each is taken, and what is said is what the page says."""

import asyncio
import re
import runpy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsec.cli import run as fedsec
from fedsec.errors import FedsecError
from fedsec.plan import FederationPlan
from fedsec_client.diagnosis import judge, look_at
from fedsec_client.enrolment import Enrolment
from fedsec_client.lock import locked
from fedsec_client.policy import check_plan
from fedsec_client.settings import NodeSettings
from tests.clients.coordinator import FakeCoordinator, make_node
from tests.pki import make_pki

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "quickstart.md"
STUDY = runpy.run_path(str(CHECKOUT / "examples" / "four_sites.py"))
NODE = 'schema = 1\n[data.digits]\nconnector = "digits"\n'


def turns() -> dict[str, str]:
    """Returns the table of the page: what went wrong, and what is said."""
    section = PAGE.read_text("utf-8").partition("## When something goes wrong")[2]
    rows = re.findall(r"^\| (.+?) \| `(.+)` \|$", section, re.MULTILINE)
    return {turn: said.replace("\\|", "|") for turn, said in rows}


class Newcomer:
    """Types commands in a directory that holds the study and a plan for it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.study = directory / "study"
        self.plan = directory / "plan.toml"
        self._capsys = capsys
        STUDY["write_study"](self.study)
        inputs = ",".join(["age", "bmi", "smoker=yes", *STUDY["MARKERS"]])
        task = ("--task", "table", "--data", "trial", "--inputs", inputs, "--classes", "2")
        assert "Written" in self.types("plan", "new", self.plan, *task)

    def types(self, *words: str | Path) -> str:
        """Returns what a command says, on one line."""
        fedsec([str(word) for word in words])
        captured = self._capsys.readouterr()
        return " ".join((captured.out + captured.err).split())

    def change(self, path: Path, old: str, new: str) -> None:
        """Makes the mistake."""
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def site(self, name: str, old: str, new: str, *more: str | Path) -> str:
        """Makes a mistake in a site's node.toml and reads its data."""
        self.change(self.study / name / "node.toml", old, new)
        return self.types("node", "data", "check", "trial", "--dir", self.study / name, *more)

    def check_plan(self, old: str, new: str) -> str:
        """Makes a mistake in the plan and checks it."""
        self.change(self.plan, old, new)
        return self.types("plan", "check", self.plan)

    def asks_site(self, name: str, old: str, new: str) -> str:
        """Makes a mistake in a site's node.toml and has the site answer the plan."""
        self.change(self.study / name / "node.toml", old, new)
        plan = FederationPlan.parse(self.plan.read_text("utf-8"))
        try:
            check_plan(plan, NodeSettings.load(self.study / name))
        except FedsecError as refusal:
            return str(refusal)
        return ""

    def joins(self, used: str) -> str:
        """Joins with an invite that is no longer good, or cut off."""

        async def main() -> str:
            async with FakeCoordinator() as fake:
                invite = fake.invite(used) if used else fake.invite()[:-20]
                words = ("node", "join", invite, "--dir", self.directory / "node")
                return await asyncio.to_thread(self.types, *words)

        return asyncio.run(main())

    def reaches(self, *, port: str = "", hours: float = 0.0) -> str:
        """Looks for the coordinator: where none listens, or with a clock that is wrong."""
        pki = make_pki()

        async def main() -> str:
            async with FakeCoordinator(pki) as fake:
                node = make_node(self.directory / "n", pki, port or fake.fleet, settings=NODE)
                return await asyncio.to_thread(self._diagnosis, node.directory, hours)

        return asyncio.run(main())

    def _diagnosis(self, directory: Path, hours: float) -> str:
        enrolment, now = Enrolment.load(directory), datetime.now(UTC) + timedelta(hours=hours)
        try:
            judge(enrolment, look_at(enrolment, timeout_s=10), now=now)
        except FedsecError as error:
            return str(error)
        return ""

    def starts_twice(self) -> str:
        """Starts a node whose agent runs."""
        node = make_node(self.directory / "n", make_pki(), "localhost:1", settings=NODE)
        with locked(node.directory):
            return self.types("node", "start", node.directory)

    def opens_its_directory(self) -> str:
        """Lets others look into a node's directory."""
        node = make_node(self.directory / "n", make_pki(), "localhost:1", settings=NODE)
        node.directory.chmod(0o755)
        return self.types("node", "check", node.directory)

    def submits(self, *more: str | Path) -> str:
        """Submits the plan where no coordinator is."""
        return self.types("run", "submit", self.plan, *more)

    def fits(self, old: str, new: str) -> str:
        """Makes a mistake in the plan and holds a site's data against it."""
        self.change(self.plan, old, new)
        north = self.study / "north"
        return self.types("node", "data", "check", "trial", "--dir", north, "--plan", self.plan)


Turn = Callable[[Newcomer], str]

TAKEN: dict[str, Turn] = {
    "a key of `node.toml` is mistyped": lambda n: n.site("south", "separator =", "seperator ="),
    "the path of a file is wrong": lambda n: n.site("north", "records.csv", "record.csv"),
    "the separator is wrong": lambda n: n.site("east", 'separator = "\\t"\n', ""),
    "the column of the label is missing": lambda n: n.site(
        "north", 'label = "ill"', 'label = "il"'
    ),
    "the file has no header": lambda n: n.site("south", "header = false\ncolumns", "# columns"),
    "decimal commas were not announced": lambda n: n.site("south", 'decimal = ","\n', ""),
    "a value is missing": lambda n: n.site("north", 'missing = "drop"', "# "),
    "a category is not in the list": lambda n: n.site("north", '["1", "2", "3"]', '["1", "2"]'),
    "the encoding is another": lambda n: n.site("east", 'encoding = "latin-1"\n', ""),
    "the connector does not exist": lambda n: n.site("west", '"parquet"', '"parket"'),
    "the table of the data set has another name": lambda n: n.types(
        "node", "data", "check", "trail", "--dir", n.study / "west"
    ),
    "labels are no classes": lambda n: n.site(
        "east", "label_threshold = 0.5", "# ", "--plan", n.plan
    ),
    "the plan wants an input that a site lacks": lambda n: n.fits('"m1"', '"m11"'),
    "a key of the plan is mistyped": lambda n: n.check_plan("min_available", "min_avialable"),
    "the quorum cannot be reached": lambda n: n.check_plan("quorum = 2", "quorum = 5"),
    "the task does not exist": lambda n: n.check_plan('name = "table"', 'name = "tabel"'),
    "no coordinator is named": lambda n: n.submits(),
    "the coordinator's directory is none": lambda n: n.submits("--dir", n.study),
    "an invite is used twice": lambda n: n.joins("used"),
    "an invite was cut off": lambda n: n.joins(""),
    "the port is closed, or a firewall is between": lambda n: n.reaches(port="localhost:9"),
    "the node's clock is wrong": lambda n: n.reaches(hours=-5),
    "the directory of a node is mistyped": lambda n: n.types("node", "check", n.study / "noth"),
    "a node is started twice": Newcomer.starts_twice,
    "others can read the node's keys": Newcomer.opens_its_directory,
    "the site does not allow the task": lambda n: n.asks_site(
        "north", 'allowed_tasks = ["table"]', ""
    ),
    "the site has no such data set": lambda n: n.asks_site("north", "[data.trial]", "[data.trail]"),
    "the site wants more nodes than the plan": lambda n: n.asks_site(
        "north", "[policy]", "[policy]\nmin_nodes = 9"
    ),
}


def test_the_page_shows_every_turn_that_is_taken_here() -> None:
    assert list(turns()) == list(TAKEN)
    assert len(TAKEN) >= 20


@pytest.mark.parametrize("turn", TAKEN)
def test_what_is_said(
    turn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDSEC_SERVER_DIR", raising=False)
    monkeypatch.delenv("FEDSEC_CREDENTIALS", raising=False)
    said = TAKEN[turn](Newcomer(tmp_path, capsys))
    place = 0
    for piece in turns().get(turn, "nothing").split("..."):
        found = said.find(piece.strip(), place)
        assert found >= 0, f"want {piece!r} in: {said}"
        place = found + len(piece.strip())
