"""A coordinator in a process of its own for a whole module, and commands typed in this one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec import cli
from tests.server.commandrig import POINTS, Fedsec, Result
from tests.server.coordinatorrig import Place, Program, make_place


@pytest.fixture
def fedsec(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Fedsec:
    """Types a command, in an empty directory with none of its environment variables set."""
    for name in ("FEDSEC_SERVER_DIR", "FEDSEC_CREDENTIALS", "FEDSEC_CA_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path / "here")

    def type_in(*words: object) -> Result:
        code = cli.run([str(word) for word in words], POINTS)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return type_in


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Path]:
    """The directory of a coordinator that runs."""
    with Program(place.layout) as program:
        program.until_listening()
        yield place.layout.directory
