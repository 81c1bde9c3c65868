"""A coordinator that lies, as a program: `python -m tests.end_to_end.liar DIRECTORY`.

It makes a node's directory (``DIRECTORY/node``), listens on loopback with mutual TLS, waits for that
node's own program, and leads it through rounds of secure sums in which it sends what it likes
(`lies`). The six other members of each sum are its own: by their real keys, on the federation's
roster.

It writes ``DIRECTORY/results.json``: for each lie, what the node answered to it.
"""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.flower.secure_messages import Stage
from fedsec.identity.signing import load_signing_key
from fedsec.plan import FederationPlan
from fedsec.secagg.messages import Survivors
from tests.clients.coordinator import NODE_ID, FakeCoordinator, make_node
from tests.end_to_end.liarrig import ALL, CROWD, PATIENCE_S, PEERS, PLAN, RUN, SITE, Liar
from tests.end_to_end.lies import LIES
from tests.pki import make_pki

Result = dict[str, str]

SMALL_GROUPS = (
    PLAN.replace("schema = 1\n", 'schema = 1\nvisibility = "groups"\n')
    .replace("min_available = 7", "min_available = 20")
    .replace("quorum = 5", "quorum = 20")
    + "group_size = 5\ncorrupt_per_group = 1\n"
)


async def offers(liar: Liar) -> Result:
    """Offers runs that the site must refuse, and at last the one in which it takes part."""
    good = liar.roster(serial=5)
    weaker = PLAN.replace("malicious", "semi-honest")
    tries = {
        "no secure sum": (PLAN.partition("[secure")[0], b""),
        "trust in the coordinator": (weaker, b""),
        "short words": (PLAN + "word_bits = 16\n", good),
        "a wide clip": (PLAN.replace("clip = 10.0", "clip = 11.0"), good),
        "small rounds": (PLAN.replace("min_available = 7", "min_available = 6"), good),
        "small groups": (SMALL_GROUPS, good),
        "no roster": (PLAN, b""),
        "a roster of another root": (PLAN, liar.roster(9, pki=make_pki())),
        "a roster without the node": (PLAN, liar.roster(9, PEERS)),
    }
    results = {}
    for number, (name, (plan, roster)) in enumerate(tries.items(), RUN + 100):
        accepted, results[name] = await liar.offer(plan, roster, number)
        assert not accepted, name
    accepted, reason = await liar.offer(PLAN, good)
    assert accepted, reason
    accepted, results["an older roster"] = await liar.offer(PLAN, liar.roster(4), RUN + 200)
    assert not accepted
    return results


async def after_a_restart(liar: Liar, directory: Path) -> Result:
    """Has the node killed in the middle of a sum, and lies to the one that comes back."""
    begun = await liar.sum_until(Stage.SIGNATURE)
    (directory / "restart").touch()
    liar.session = await liar.fake.session(PATIENCE_S)
    _, older = await liar.offer(PLAN, liar.roster(4), RUN + 300)
    accepted, reason = await liar.offer(PLAN, liar.roster(serial=6))
    assert accepted, reason
    return {
        "an older roster after a restart": older,
        "the same attempt after a restart": str(await liar.ask(begun.first(), Stage.OFFER)),
        "a later stage after a restart": str(
            await begun.ask(Stage.SIGNATURE, Survivors(ALL).to_bytes())
        ),
    }


async def main(directory: Path) -> None:
    pki = make_pki()
    async with FakeCoordinator(pki) as fake:
        enrolment = make_node(directory / "node", pki, fake.fleet, settings=SITE)
        pem = (directory / "node" / "identity" / "signing.key.pem").read_bytes()
        keys = {NODE_ID: load_signing_key(pem)}
        for peer in (*PEERS, *CROWD):
            seed = hashlib.sha256(b"peer %d" % peer).digest()
            keys[peer] = Ed25519PrivateKey.from_private_bytes(seed)
        (directory / "listening").touch()
        session = await fake.session(PATIENCE_S)
        name = enrolment.record.spiffe_id
        liar = Liar(fake, session, pki, keys, FederationPlan.parse(PLAN), name)
        results = await offers(liar)
        for lie in LIES:
            answer = await lie(liar)
            results[lie.__name__] = answer if isinstance(answer, str) else f"answered: {answer!r}"
        results |= await after_a_restart(liar, directory)
        honest = await liar.sum_until(Stage.REVEAL)  # after all of that, a sum comes about
        revealed = await honest.ask(Stage.REVEAL, Survivors(ALL, honest.signatures).to_bytes())
        results["honest"] = type(revealed).__name__
        (directory / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
