"""The time of a round while somebody attacks the coordinator, beside the time when nobody does.

Ten light nodes do rounds of 10,000 float32 over a real coordinator. The attacker (`attacker.py`) is
one enrolled node, or somebody without a certificate, up to 50 times a second; what it costs the
machine is part of what is measured, for both share it. Every attack is refused; a row says how
often a second. A ratio of 0.83 or more is a round at most 20 % longer.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import common
from attacker import ATTACKS
from light_fleet import LIFE, crowds, enrol
from scale import LIGHT_SIZE, PLAN

from fedsec.files import write_private
from fedsec.identity.names import Kind
from fedsec_server.generations import load_authorities
from fedsec_server.layout import Listening
from fedsec_sim.loopback import LoopbackFederation

APP = Path(__file__).parent / "roundtrip_app"
NODES = 10
LEAST_RATE = 25.0  # attacks a second, below which this is no measurement


def main() -> None:
    """Measures, prints and writes."""
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of each run (default: 40, quick: 5)")
    chosen = parser.parse_args()
    rounds = chosen.rounds or (5 if chosen.quick else 40)
    names = list(ATTACKS)[:2] if chosen.quick else list(ATTACKS)
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="fedsec-bench-") as work,
        LoopbackFederation(Path(work) / "fedsec", apps={"roundtrip": APP}) as federation,
        crowds(federation, NODES),
    ):
        tell_attacker(federation)
        for name in names:
            quiet = one_run(federation, rounds)
            with going_on(federation, name) as told:
                attacked = one_run(federation, rounds)
            results.append(
                common.compare(
                    f"round n={NODES} d={LIGHT_SIZE} under {name}, {told[0]:.0f} a second",
                    "time",
                    "s",
                    ours=attacked,
                    peer=quiet,
                    peer_name="nobody attacks",
                )
            )
    common.publish(results, chosen.json)


def one_run(federation: LoopbackFederation, rounds: int) -> list[float]:
    """Returns seconds of each round."""
    report = federation.directory / "report.json"
    plan = PLAN.format(rounds=rounds, size=LIGHT_SIZE, nodes=NODES, report=report)
    run_id = federation.submit(plan)
    federation.wait_for_run(run_id, seconds=240)
    seconds: list[float] = json.loads(report.read_text("utf-8"))["seconds"]
    return seconds


@contextmanager
def going_on(federation: LoopbackFederation, name: str) -> Iterator[list[float]]:
    """Lets an attack go on to the end of the block; then gives its refusals a second."""
    file = federation.directory / "attacker.json"
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "attacker.py"), str(file), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as attacker:
        rate: list[float] = []
        try:
            yield rate
            said = json.loads(attacker.communicate(timeout=60)[0])
        finally:
            attacker.kill()
    rate.append(said["refused"] / said["seconds"])
    assert rate[0] >= LEAST_RATE, f"{name}: refused {rate[0]:.1f} times a second"


def tell_attacker(federation: LoopbackFederation) -> None:
    """Enrols one more node, and writes down what the attacker needs to be it."""
    [spec] = enrol(federation, 1, first=10_000)
    authorities = load_authorities(federation.layout, LIFE, now=datetime.now(UTC))
    told = {
        "address": Listening.read(federation.layout).addresses["fleet"],
        "servers_ca": authorities.anchors(Kind.SERVER).decode(),
        **spec,
    }
    write_private(federation.directory / "attacker.json", json.dumps(told).encode())


if __name__ == "__main__":
    main()
