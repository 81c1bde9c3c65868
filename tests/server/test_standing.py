"""What `run show` and `run watch` say of nodes: who stands out, how often, and why."""

import json

from fedsec.console import console
from fedsec.wire.generated import admin_pb2 as pb
from fedsec_server.commands.standing import Standing

NAMES = {"1": "clinic-1", "2": "clinic-2", "3": "clinic-3"}


def event(number: int, *records: dict[str, object], kind: str = "nodes") -> pb.Event:
    return pb.Event(kind=kind, detail_json=json.dumps({"round": number, "nodes": list(records)}))


def record(*nodes: int, **values: object) -> dict[str, object]:
    return {"nodes": list(nodes), **values}


def three_rounds() -> Standing:
    standing = Standing(names=NAMES)
    for number in (1, 2, 3):
        standing.add(
            event(
                number,
                record(1, rank=1, cosine=0.5, norm=2.0),
                record(
                    2,
                    rank=2,
                    cosine=0.25,
                    norm=3.0,
                    **({"suspect": "is far"} if number == 3 else {}),
                ),
                record(3, excluded=f"not-finite in {number}"),
            )
        )
    return standing


def lines(standing: Standing) -> list[list[str]]:
    out = console()
    with out.capture() as captured:
        out.print(standing.table())
    return [line.split() for line in captured.get().splitlines()]


def test_the_most_suspicious_node_comes_first_with_its_last_reason() -> None:
    _, first, second, third = lines(three_rounds())
    assert first == ["clinic-3", "3", "3", "3", "-", "-", "-", "not-finite", "in", "3"]
    assert second == ["clinic-2", "3", "1", "0", "2", "0.25", "3", "is", "far"]
    assert third == ["clinic-1", "3", "0", "0", "1", "0.50", "2"]


def test_the_summary_names_who_stood_out_in_half_of_the_rounds() -> None:
    assert three_rounds().summary() == [("stand out", "clinic-3 (3 of 3 rounds: not-finite in 3)")]
    assert Standing().summary() == []
    quiet = Standing()
    quiet.add(event(1, record(1, rank=1)))
    assert quiet.summary() == [("stand out", "none")]


def test_all_nodes_of_a_group_share_its_record() -> None:
    standing = Standing()
    standing.add(event(1, record(1, 2, suspect="is far")))
    assert {name: node.suspect for name, node in standing.nodes.items()} == {"1": 1, "2": 1}


def test_long_lists_are_cut_and_other_events_are_not_looked_at() -> None:
    standing = Standing()
    standing.add(event(1, record(7), kind="round"))
    assert standing.nodes == {}
    standing.add(event(1, *(record(n, excluded="bad") for n in range(100))))
    assert lines(standing)[-1][:3] == ["and", "70", "more"]
    assert str(standing.summary()[0][1]).endswith("; and 90 more")
