"""Events and runs as a coordinator tells them."""

import json

from fedsec.wire.generated import admin_pb2 as pb


def event(sequence: int, kind: str = "round", **detail: object) -> pb.Event:
    return pb.Event(sequence=sequence, at=1.0, kind=kind, detail_json=json.dumps(detail))


def of(made: pb.Event | pb.Run) -> pb.RunEvent:
    return pb.RunEvent(run=made) if isinstance(made, pb.Run) else pb.RunEvent(event=made)


def run_of(state: str, **changes: float | str) -> pb.Run:
    return pb.Run(run_id=7, name="digits", state=state, rounds=3, submitted_at=10.0, **changes)  # type: ignore[arg-type]
