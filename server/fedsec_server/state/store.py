"""The coordinator's memory: every read and write of the database, as short methods.

Methods block for as long as the database takes (about a millisecond); an asyncio program calls
them through `asyncio.to_thread`. They are safe from any number of threads. What must happen
together happens in one transaction of one method.
"""

import itertools
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from fedsec.errors import IdentityError, StateError
from fedsec_server.state import rows
from fedsec_server.state.engine import WRITES, open_database
from fedsec_server.state.models import Denial, EventRow, Node, Run
from fedsec_server.state.values import (
    FINAL,
    CertificateRecord,
    Denied,
    Event,
    NodeRecord,
    NodeState,
    PersonRecord,
    Revocation,
    RunRecord,
    RunState,
)

_RUN_IDS = range(10**9, 10**10)


class Store:
    """All tables of one coordinator. See the module's docstring.

    Args:
        engine: From `open_database`, or another one whose schema `upgrade` has made.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{WRITES: True})

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Opens or makes the database at `path`; raises StateError as `open_database` does."""
        return cls(open_database(path))

    def close(self) -> None:
        """Closes all connections. A later call of another method would open new ones."""
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """One transaction, committed at the end of the block, undone by an exception.

        Raises:
            StateError: The database does not take it: the disk is full, or read-only.
        """
        try:
            with Session(self._writing) as session, session.begin():
                yield session
        except OperationalError as error:
            raise StateError(
                f"the coordinator's database cannot be written: {error.orig}; nothing was changed. "
                "Its operator looks at the disk: full, read-only?"
            ) from error

    # --- nodes ---------------------------------------------------------------------------------

    def add_invite(
        self,
        name: str,
        token_hash: bytes,
        *,
        spiffe_id: str,
        created_by: str,
        now: float,
        expires_at: float,
        max_nodes: int,
    ) -> NodeRecord:
        """Keeps an invite and returns its node, which is new or was invited in vain before.

        Args:
            name: Of the node, as the operator says it.
            token_hash: SHA-256 of the one-time token, 32 bytes; the token itself is not kept.
            spiffe_id: Identity that the node gets if it is new.
            created_by: SPIFFE ID of the person.
            now: Unix seconds.
            expires_at: Unix seconds.
            max_nodes: Most nodes that may be invited or enrolled at a time.

        Raises:
            StateError: The name is taken, or there are `max_nodes` already; says what to do.
        """
        try:
            with self._write() as session:
                node = rows.invitable(session, name, spiffe_id, now, max_nodes)
                session.add(rows.new_invite(node, token_hash, created_by, now, expires_at))
                return rows.node_record(session, node)
        except IntegrityError as error:  # another connection was first, or a random id collided
            raise StateError(
                f"node {name!r} was invited at the same moment; see it with "
                f"`fedsec node show {name}` or try again"
            ) from error

    def enrol_node(
        self,
        token_hash: bytes,
        *,
        signing_key: bytes,
        root_pinned: bool,
        now: float,
        issue: Callable[[NodeRecord], CertificateRecord],
    ) -> NodeRecord:
        """Spends a token, makes its node enrolled and keeps its first certificate, all or nothing.

        Args:
            token_hash: SHA-256 of what the node presented.
            signing_key: Ed25519 public key, 32 bytes, whose proof the caller has checked.
            root_pinned: What the node says.
            now: Unix seconds.
            issue: Makes the certificate for the node; runs inside the transaction, so an error in
                it leaves the token unspent.

        Raises:
            IdentityError: with one of the codes
                ``unknown-token``  no invite has this token;
                ``token-used``     it was spent before, be it a moment ago by another connection;
                ``token-expired``  it was not used in time;
                ``wrong-kind``     it is an invite for something else than a node;
                ``revoked``        the operator withdrew the invite.
        """
        with self._read() as session:  # a guess must not wait for the one who writes, nor be one
            rows.check_known(session, token_hash)
        with self._write() as session:
            invite = rows.spend(session, token_hash, now)
            rows.enrol(session, invite.node_id, signing_key, root_pinned, now)
            node = session.scalars(select(Node).where(Node.node_id == invite.node_id)).one()
            session.add(rows.certificate_row(issue(rows.node_record(session, node))))
            session.flush()
            return rows.node_record(session, node)

    def nodes(self) -> list[NodeRecord]:
        """Returns all nodes ever invited, by name, the oldest of a name first."""
        with self._read() as session:
            found = session.scalars(select(Node).order_by(Node.name, Node.invited_at)).all()
            expiries = rows.expiries(session)
            return [rows.to_record(node, expiries.get(node.spiffe_id)) for node in found]

    def node_by_name(self, name: str) -> NodeRecord:
        """Returns the node of that name: the live one, else the newest revoked one.

        Raises:
            StateError: There is none.
        """
        with self._read() as session:
            return rows.node_record(session, rows.named(session, name))

    def node_by_spiffe(self, spiffe_id: str) -> NodeRecord:
        """Returns the node with that identity.

        Raises:
            IdentityError: ``unknown-node``: this coordinator never enrolled it.
        """
        with self._read() as session:
            node = session.scalar(select(Node).where(Node.spiffe_id == spiffe_id))
            if node is None:
                raise IdentityError("unknown-node", f"{spiffe_id} was never enrolled here")
            return rows.node_record(session, node)

    def note_seen(self, node_id: int, now: float) -> None:
        """Keeps that the node was here at `now`, Unix seconds."""
        with self._write() as session:
            session.execute(update(Node).where(Node.node_id == node_id).values(last_seen_at=now))

    def revoke_node(self, name: str, reason: str, now: float) -> Revocation:
        """Denies the node of that name: its identity, every live certificate, an open invite.

        Raises:
            StateError: There is no such node, or it is revoked already.
        """
        with self._write() as session:
            node = rows.named(session, name)
            changed = session.execute(
                update(Node)
                .where(Node.node_id == node.node_id, Node.state != NodeState.REVOKED)
                .values(
                    state=NodeState.REVOKED,
                    claim=None,
                    revoked_at=now,
                    revoked_reason=rows.sentence(reason),
                )
            )
            if rows.count(changed) != 1:
                raise StateError(
                    f"node {name!r} is revoked already, since {rows.moment(node.revoked_at)}"
                )
            serials = rows.deny(session, node.spiffe_id, reason, now)
            session.flush()
            return Revocation(rows.node_record(session, node), serials)

    def denied(self, now: float) -> Denied:
        """Returns what is denied and, at `now` in Unix seconds, has not expired anyway."""
        with self._read() as session:
            found = session.execute(
                select(Denial, Node.name)
                .outerjoin(Node, Node.spiffe_id == Denial.value)
                .where((Denial.until.is_(None)) | (Denial.until > now))
            ).all()
        return Denied(
            serials=frozenset(int(row.value, 16) for row, _ in found if row.kind == "serial"),
            identities={row.value: name or "" for row, name in found if row.kind == "identity"},
        )

    def people(self, now: float) -> list[PersonRecord]:
        """Returns the certificates of people that are not expired, by identity, oldest first."""
        with self._read() as session:
            return rows.people(session, now)

    def revoke_certificates(
        self, spiffe_ids: Iterable[str], reason: str, now: float
    ) -> tuple[int, ...]:
        """Denies what these identities hold now, and returns the serials; later ones are good."""
        with self._write() as session:
            found = [rows.live(session, spiffe_id, now) for spiffe_id in spiffe_ids]
            return rows.deny_serials(session, itertools.chain(*found), reason, now)

    def add_certificate(self, certificate: CertificateRecord) -> None:
        """Keeps a certificate that was issued to a person or renewed for a node.

        Raises:
            IdentityError: ``revoked``: the identity was denied meanwhile; do not hand it out.
        """
        with self._write() as session:
            if session.get(Denial, ("identity", certificate.spiffe_id)) is not None:
                raise IdentityError("revoked", f"{certificate.spiffe_id} was revoked")
            session.add(rows.certificate_row(certificate))

    # --- runs ----------------------------------------------------------------------------------

    def create_run(
        self,
        *,
        name: str,
        plan: str,
        plan_digest: str,
        rounds: int,
        submitted_by: str,
        now: float,
    ) -> RunRecord:
        """Keeps a new run, pending, under a new random id. `rounds` is 0 if an app decides."""
        with self._write() as session:
            run_id = secrets.choice(_RUN_IDS)
            while session.get(Run, run_id) is not None:
                run_id = secrets.choice(_RUN_IDS)
            run = Run(
                run_id=run_id,
                name=name,
                state=RunState.PENDING,
                plan=plan,
                plan_digest=plan_digest,
                rounds=rounds,
                submitted_at=now,
                submitted_by=submitted_by,
            )
            session.add(run)
            session.flush()
            return rows.run_record(run)

    def set_run_state(
        self, run_id: int, state: RunState, *, now: float, reason: str = ""
    ) -> RunRecord:
        """Moves a run on and returns it as it is now. An ended run stays as it ended.

        Record the event of the change afterwards, not before: watchers look at the run when an
        event comes.

        Args:
            run_id: Of the run.
            state: The next one.
            now: Unix seconds; becomes the start or the end of the run.
            reason: One sentence; why it ended.

        Raises:
            StateError: There is no such run.
        """
        with self._write() as session:
            run = rows.run_row(session, run_id)
            if run.state not in FINAL:
                run.state, run.reason = state, rows.sentence(reason)
                if state is RunState.RUNNING:
                    run.started_at = now
                if state in FINAL:
                    run.ended_at = now
                session.flush()
            return rows.run_record(run)

    def set_run_round(self, run_id: int, completed: int) -> None:
        """Keeps how many rounds of a run are completed."""
        with self._write() as session:
            session.execute(update(Run).where(Run.run_id == run_id).values(round=completed))

    def runs(self) -> list[RunRecord]:
        """Returns all runs, the oldest first."""
        with self._read() as session:
            found = session.scalars(select(Run).order_by(Run.submitted_at, Run.run_id)).all()
            return [rows.run_record(run) for run in found]

    def run(self, run_id: int) -> RunRecord:
        """Returns one run; raises StateError if there is none of that id."""
        with self._read() as session:
            return rows.run_record(rows.run_row(session, run_id))

    # --- events --------------------------------------------------------------------------------

    def append_event(
        self,
        kind: str,
        subject: str,
        detail: Mapping[str, object],
        *,
        at: float,
        run_id: int | None = None,
    ) -> Event:
        """Adds an event for good. `Recorder.record` is the one caller."""
        with self._write() as session:
            row = EventRow(
                at=at, kind=kind, subject=subject, run_id=run_id, detail=json.dumps(dict(detail))
            )
            session.add(row)
            session.flush()
            return rows.event_value(row)

    def events_of_run(self, run_id: int, *, after: int, limit: int) -> list[Event]:
        """Returns the first `limit` events of a run whose sequence number is beyond `after`."""
        query = (
            select(EventRow)
            .where(EventRow.run_id == run_id, EventRow.sequence > after)
            .order_by(EventRow.sequence)
            .limit(limit)
        )
        with self._read() as session:
            return [rows.event_value(row) for row in session.scalars(query)]

    def events(
        self,
        *,
        run_id: int | None = None,
        subject: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Event]:
        """Returns events in the order in which they were recorded.

        Args:
            run_id: Only those of this run.
            subject: Only those about this subject.
            after: Only those with a larger sequence number.
            limit: Only the newest so many.
        """
        query = select(EventRow).where(EventRow.sequence > after)
        if run_id is not None:
            query = query.where(EventRow.run_id == run_id)
        if subject is not None:
            query = query.where(EventRow.subject == subject)
        with self._read() as session:
            newest_first = query.order_by(EventRow.sequence.desc()).limit(limit)
            return [rows.event_value(row) for row in reversed(session.scalars(newest_first).all())]
