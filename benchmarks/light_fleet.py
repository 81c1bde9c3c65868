"""A real coordinator with any number of light nodes, and what a process takes of the machine."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedsec.files import write_private
from fedsec.identity.leaves import Lifetimes, key_pem, make_key, make_request
from fedsec.identity.names import Kind, Role, make_spiffe
from fedsec_server.generations import load_authorities
from fedsec_server.layout import Listening
from fedsec_server.state.store import Store
from fedsec_sim.loopback import LoopbackFederation

LIFE = Lifetimes(node=timedelta(hours=12))
PER_PROCESS = 500
_HERE = Path(__file__).parent
_LONG = 1e6  # s; of an invite that is spent at once


@dataclass
class Crowd:
    """Light nodes in one process."""

    process: "subprocess.Popen[str]"

    def heard(self) -> dict[str, float]:
        """Returns the next line that it says."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError("a process of light nodes has ended; see its stderr above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def asked(self, question: str) -> dict[str, float]:
        """Returns its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.heard()


def enrol(federation: LoopbackFederation, count: int, first: int = 0) -> list[dict[str, str]]:
    """Puts nodes into the database as enrolment does; the coordinator may run meanwhile."""
    authorities = load_authorities(federation.layout, LIFE, now=datetime.now(UTC))
    store = Store.open(federation.layout.database)
    specs = []
    for number in range(first, first + count):
        name, token, key = secrets.token_hex(16), secrets.token_bytes(32), make_key()
        spiffe_id = make_spiffe(authorities.federation, Kind.NODE, Role.NODE, name)
        store.add_invite(
            f"light-{number}",
            token,
            spiffe_id=spiffe_id,
            created_by="benchmark",
            now=0.0,
            expires_at=_LONG,
            max_nodes=100_000,
        )
        issued = authorities.issue(
            Kind.NODE, make_request(key), name=name, lifetimes=LIFE, now=datetime.now(UTC)
        )
        record = store.enrol_node(
            token,
            signing_key=secrets.token_bytes(32),
            root_pinned=True,
            now=1.0,
            issue=lambda _, record=issued.record: record,
        )
        specs.append(
            {
                "node_id": str(record.node_id),
                "chain": issued.chain_pem.decode(),
                "key": key_pem(key).decode(),
            }
        )
    store.close()
    return specs


@contextmanager
def crowds(federation: LoopbackFederation, count: int) -> Iterator[list[Crowd]]:
    """Connects `count` further nodes, in as few processes as is wise, until the block ends."""
    specs = enrol(federation, count, first=len(Store.open(federation.layout.database).nodes()))
    port = Listening.read(federation.layout).addresses["fleet"]
    anchors = load_authorities(federation.layout, LIFE, now=datetime.now(UTC)).anchors(Kind.SERVER)
    started = []
    try:
        for number, start in enumerate(range(0, count, PER_PROCESS)):
            told = {
                "address": port,
                "servers_ca": anchors.decode(),
                "nodes": specs[start : start + PER_PROCESS],
            }
            file = federation.directory / f"light-{number}.json"
            write_private(file, json.dumps(told).encode())
            started.append(
                Crowd(
                    subprocess.Popen(
                        [sys.executable, str(_HERE / "light_nodes.py"), str(file)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
            )
        for crowd in started:
            crowd.heard()
        yield started
    finally:
        for crowd in started:
            crowd.process.kill()
            crowd.process.communicate()


def resident(pid: int) -> int:
    """Returns the bytes of memory that a process holds now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Returns the processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(pid: int, seconds: float) -> float:
    """Returns the share of one processor that a process takes over the next `seconds`."""
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)
