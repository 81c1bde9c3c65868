"""Runs that are over are remembered on the disk, and not taken up again."""

import os
from pathlib import Path

import pytest

from fedsec.errors import ConfigError
from fedsec_client.ended import FILE_NAME, EndedRuns
from tests.clients.agentrig import add_one, node, ready, run
from tests.clients.coordinator import RUN_ID, FakeCoordinator, make_node
from tests.clients.orders import PLAN, SETTINGS


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "node"
    made.mkdir(mode=0o700)
    return made


def test_they_are_known_to_the_next_agent(directory: Path) -> None:
    ended = EndedRuns(directory)
    assert 7 not in ended
    assert ended.add([7, 2**63])
    assert ended.add([7])
    again = EndedRuns(directory)
    assert 7 in again
    assert 2**63 in again
    assert 8 not in again


def test_what_cannot_be_written_down_is_said(directory: Path) -> None:
    ended = EndedRuns(directory)
    directory.chmod(0o500)
    if os.access(directory, os.W_OK):  # root writes everywhere
        (directory / FILE_NAME).mkdir()
    assert not ended.add([7])
    assert not ended.add([7])  # it is no more on the disk than before
    assert 7 in ended  # as long as this agent lives
    directory.chmod(0o700)
    if (directory / FILE_NAME).is_dir():
        (directory / FILE_NAME).rmdir()
    assert ended.add([])  # what is owed to the disk is made up for
    assert 7 in EndedRuns(directory)


def test_a_damaged_file_is_refused_by_name(directory: Path) -> None:
    EndedRuns(directory).add([7])
    (directory / FILE_NAME).write_bytes(b"7\nx\n")
    with pytest.raises(ConfigError, match=f"{FILE_NAME} is damaged"):
        EndedRuns(directory)


def test_a_run_that_is_over_is_not_taken_up_again(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    refused = (RUN_ID, False, "the run is over on this node; it is not taken up again")

    async def main() -> None:
        async with FakeCoordinator() as fake:
            made = make_node(directory, fake.pki, fake.fleet, settings=SETTINGS)
            async with node(directory, fake, enrolment=made):
                session = await ready(fake)
                session.end_run(RUN_ID)
                session.offer(RUN_ID, PLAN)
                assert await fake.run_answer() == refused
            async with node(directory, fake, enrolment=made):
                session = await fake.session()
                session.offer(RUN_ID, PLAN)
                assert await fake.run_answer() == refused
                session.offer(RUN_ID + 1, PLAN)
                assert await fake.run_answer() == (RUN_ID + 1, True, "")

    run(main())


def test_a_plan_that_is_refused_does_not_take_the_state_of_a_run_away(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    state = directory / "runs" / str(RUN_ID) / "state"

    async def main() -> None:
        async with FakeCoordinator() as fake:
            made = make_node(directory, fake.pki, fake.fleet, settings=SETTINGS)
            async with node(directory, fake, enrolment=made):
                await add_one(fake, await ready(fake))
            async with node(directory, fake, enrolment=made):
                session = await fake.session()
                session.offer(RUN_ID, "schema = ")
                assert (await fake.run_answer())[:2] == (RUN_ID, False)
                assert state.exists()
                session.offer(RUN_ID, PLAN)
                assert await fake.run_answer() == (RUN_ID, True, "")
                assert (await add_one(fake, session))["count"] == 2

    run(main())
