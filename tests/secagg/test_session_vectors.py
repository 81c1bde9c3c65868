"""Whole sessions of the vectors, byte for byte: by fedsec, and by the reference that shares nothing."""

import ast
import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsec.secagg import messages, node
from fedsec.secagg.coordinator import Opened
from fedsec.secagg.masks import word_type
from fedsec.secagg.membership import Setting
from fedsec.secagg.parameters import Assumptions, Mode
from fedsec.secagg.session import Session
from tests.secagg.reference import replay
from tests.secagg.rig import Rig, silent

HERE = Path(__file__).parent
SESSIONS = json.loads((HERE.parent / "vectors/secagg-sessions.json").read_text("utf-8"))["sessions"]
GIVEN = {
    "malicious", "plan", "run", "round", "attempt", "group", "word_bits", "words", "asked",
    "corrupt", "dropout", "draws", "nodes", "lost",
}  # fmt: skip

Case = dict[str, Any]
Told = Mapping[str, Mapping[int, bytes]]


def name(case: Case) -> str:
    mode = "malicious" if case["malicious"] else "semi-honest"
    return f"{mode}-{len(case['nodes'])}-{case['word_bits']}-bits-lost-{len(case['lost'])}"


def check(case: Case, way: str, got: Told) -> None:
    """Compares all that was sent, or said, with the vector."""
    assert got.keys() == case[way].keys()
    for stage, wanted in case[way].items():
        if "all" in wanted:
            wanted = dict.fromkeys(map(str, got[stage]), wanted["all"])  # noqa: PLW2901
        assert wanted.keys() == {str(i) for i in got[stage]}
        for i, data in got[stage].items():
            shown = wanted[str(i)]
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            assert shown == (digest if shown.startswith("sha256:") else data.hex()), (stage, i)


def by_fedsec(case: Case) -> Rig:
    session = Session(
        plan=bytes.fromhex(case["plan"]),
        asked=bytes.fromhex(case["asked"]),
        **{name: case[name] for name in ("run", "round", "attempt", "group", "malicious")},
        **{name: case[name] for name in ("words", "word_bits")},
    )
    mode = Mode.MALICIOUS if case["malicious"] else Mode.SEMI_HONEST
    rates = Fraction(case["corrupt"]), Fraction(case["dropout"])
    given = {each["node"]: each for each in case["nodes"]}
    signers = {
        i: Ed25519PrivateKey.from_private_bytes(bytes.fromhex(each["signer"]))
        for i, each in given.items()
    }
    return Rig(
        Setting(session, Assumptions(mode, *rates, draws=case["draws"]), quorum=1),
        tuple(given),
        {i: np.array(e["vector"], word_type(case["word_bits"])) for i, e in given.items()},
        tamper=silent({each["node"]: each["stage"] for each in case["lost"]}),
        trusted={i: key.public_key().public_bytes_raw() for i, key in signers.items()},
        signers=signers,
        entropy={i: BytesIO(bytes.fromhex(each["entropy"])).read for i, each in given.items()},
    )


def said_in(rig: Rig) -> Told:
    def data(answer: object) -> bytes:
        match answer:
            case messages.Offer() | messages.Shares():
                return answer.to_bytes()
            case node.Upload(words, complaints):
                assert not complaints
                return words.tobytes()
            case bytes():
                return answer
            case tuple():
                return messages.write_revealed(answer)
        raise AssertionError(answer)

    return {
        stage: {i: data(answer) for i, answer in said.items()} for stage, said in rig.meant.items()
    }


@pytest.mark.parametrize("case", SESSIONS, ids=name)
def test_fedsec_says_what_the_vector_says(case: Case) -> None:
    rig = by_fedsec(case)
    end = rig.run()
    assert isinstance(end, Opened)
    assert not rig.refused
    assert not rig.rejected
    assert list(end.survivors) == case["survivors"]
    assert end.total.tolist() == case["total"] == rig.expected(case["survivors"])
    check(case, "said", said_in(rig))
    check(
        case,
        "sent",
        {s: {i: each.to_bytes() for i, each in of.items()} for s, of in rig.asked.items()},
    )


@pytest.mark.parametrize("case", SESSIONS, ids=name)
def test_the_reference_says_what_the_vector_says(case: Case) -> None:
    end = replay({field: case[field] for field in GIVEN})
    for way in ("sent", "said"):
        check(case, way, end.pop(way))
    assert end == {field: case[field] for field in end}
    assert end.keys() | GIVEN | {"sent", "said"} == case.keys()


def test_the_vectors_show_both_modes_both_graphs_and_a_loss_at_every_stage() -> None:
    shown = {(case["malicious"], case["neighbours"] < len(case["nodes"]) - 2) for case in SESSIONS}
    assert shown == {(False, False), (False, True), (True, False), (True, True)}
    lost = {each["stage"] for case in SESSIONS for each in case["lost"]}
    assert lost == {"nonce", "shares", "vector", "signature", "revealed"}


def test_the_reference_shares_no_code_with_fedsec() -> None:
    seen, left = set[str](), {"tests.secagg.reference"}
    while left:
        module = left.pop()
        seen.add(module)
        tree = ast.parse((HERE.parents[1] / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        for each in ast.walk(tree):
            match each:
                case ast.Import(names):
                    found = {alias.name for alias in names}
                case ast.ImportFrom(module=str(source), names=names):
                    found = {source, *(f"{source}.{alias.name}" for alias in names)}
                case _:
                    continue
            assert not {name for name in found if name.split(".")[0] == "fedsec"}
            left |= {
                name for name in found
                if name.startswith("tests.secagg.")
                and (HERE / f"{name.rpartition('.')[2]}.py").exists()
            } - seen  # fmt: skip
    assert seen == {
        "tests.secagg.reference",
        "tests.secagg.naive",
        "tests.secagg.make_graph_vectors",
    }
