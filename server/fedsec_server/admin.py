"""What people command: the methods of the admin listener.

Who calls comes from the certificate, never from the request. Who may call what: `ROLES`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fedsec.errors import ConfigError
from fedsec.identity.invites import Invite, make_token, token_hash
from fedsec.identity.names import Kind, Role, check_name, make_spiffe
from fedsec.wire.call import Call, Handler, Method, server_stream, unary
from fedsec.wire.denylist import Denylist
from fedsec.wire.gate import utc_now
from fedsec.wire.generated import admin_pb2 as pb
from fedsec.wire.services import ADMIN, check_complete
from fedsec_server.authorities import Authorities
from fedsec_server.events import PAGE, Recorder, run_subject
from fedsec_server.layout import Layout
from fedsec_server.node_records import find_records, reply
from fedsec_server.people_desk import MAX_REASON, PeopleDesk
from fedsec_server.roles import ROLES
from fedsec_server.rosters import publish
from fedsec_server.settings import Listener, ServerSettings
from fedsec_server.state.store import Store
from fedsec_server.state.values import NodeState, Revocation, RunState
from fedsec_server.versions import SOFTWARE
from fedsec_server.views import authority_views, event_view, newest, node_view, run_view

__all__ = ["ROLES", "AdminService", "Presence", "Runs"]

CHUNK = 1 << 20
EVENTS_SHOWN = 1000
MISSING_SHOWN = 1000  # names of nodes
MAX_INVITE_S = 7 * 86_400.0


class Runs(Protocol):
    """What the admin service asks of whoever runs plans."""

    async def submit(self, plan_toml: str, by: str) -> int:
        """Starts a plan and returns its run's id; `by` is the SPIFFE ID of who asks."""

    async def stop(self, run_id: int, by: str) -> RunState:
        """Stops a run and returns its state once it has ended."""

    async def model_path(self, run_id: int, round_number: int = 0) -> Path:
        """Returns the file of the model after that round; 0: the newest."""


class Presence(Protocol):
    """What the admin service asks of whoever holds the nodes' connections."""

    def connected(self) -> Collection[int]:
        """Returns the ids of the nodes that are connected now."""


@dataclass(frozen=True, slots=True)
class AdminService:
    """Answers the admin listener.

    Args:
        store: The coordinator's memory.
        authorities: Of the federation.
        people: Answers what is asked about people.
        settings: Of the coordinator.
        layout: Of its directory.
        recorder: Gets what people changed.
        denylist: The live one, shared with the gates.
        runs: Runs plans.
        presence: Knows who is connected.
        addresses: What others are told, ``host:port`` by listener; read at each call.
        certificate_expires_at: Of the coordinator's own certificate, Unix seconds.
        reload_authorities: Reads the authorities' files again.
        started_at: Unix seconds.
        clock: Aware UTC.
    """

    store: Store
    authorities: Authorities
    people: PeopleDesk
    settings: ServerSettings
    layout: Layout
    recorder: Recorder
    denylist: Denylist
    runs: Runs
    presence: Presence
    addresses: Mapping[Listener, str]
    certificate_expires_at: Callable[[], float]
    reload_authorities: Callable[[], Awaitable[None]]
    started_at: float
    clock: Callable[[], datetime] = utc_now

    def methods(self) -> list[Method]:
        """Returns one row per RPC, with its roles, for the admin listener's gate."""
        handlers: dict[str, Handler] = {
            "Status": unary(pb.StatusRequest, self._status),
            "InviteNode": unary(pb.InviteNodeRequest, self._invite_node),
            "ListNodes": unary(pb.ListNodesRequest, self._list_nodes),
            "ShowNode": unary(pb.ShowNodeRequest, self._show_node),
            "ReloadAuthorities": unary(pb.ReloadAuthoritiesRequest, self._reload_authorities),
            "RevokeNode": unary(pb.RevokeNodeRequest, self._revoke_node),
            "AddPerson": unary(pb.AddPersonRequest, self.people.add),
            "ListPeople": unary(pb.ListPeopleRequest, self.people.list),
            "RevokePerson": unary(pb.RevokePersonRequest, self.people.revoke),
            "PublishRoster": unary(pb.PublishRosterRequest, self._publish_roster),
            "SubmitRun": unary(pb.SubmitRunRequest, self._submit_run),
            "ListRuns": unary(pb.ListRunsRequest, self._list_runs),
            "ShowRun": unary(pb.ShowRunRequest, self._show_run),
            "WatchRun": server_stream(pb.WatchRunRequest, self._watch_run),
            "StopRun": unary(pb.StopRunRequest, self._stop_run),
            "ShowRecords": unary(pb.ShowRecordsRequest, self._show_records),
            "FetchModel": server_stream(pb.FetchModelRequest, self._fetch_model),
        }
        long_lived = {"WatchRun", "FetchModel"}
        rows = [
            Method(path, ROLES[path], handler, long_lived=name in long_lived)
            for name, handler in handlers.items()
            for path in [f"/{ADMIN.full_name}/{name}"]
        ]
        check_complete(ADMIN, rows)
        return rows

    def _now(self) -> float:
        return self.clock().timestamp()

    # --- the coordinator and its nodes -------------------------------------------------------

    async def _status(self, _call: Call, _request: pb.StatusRequest) -> pb.StatusReply:
        nodes = await asyncio.to_thread(self.store.nodes)
        runs = await asyncio.to_thread(self.store.runs)
        return pb.StatusReply(
            federation=self.settings.federation,
            software=SOFTWARE,
            started_at=self.started_at,
            nodes_enrolled=sum(node.state is NodeState.ENROLLED for node in nodes),
            nodes_connected=len(self.presence.connected()),
            runs_active=sum(not run.state.final for run in runs),
            certificate_expires_at=self.certificate_expires_at(),
            authority=authority_views(self.authorities),
        )

    async def _reload_authorities(
        self, _call: Call, _request: pb.ReloadAuthoritiesRequest
    ) -> pb.ReloadAuthoritiesReply:
        await self.reload_authorities()
        return pb.ReloadAuthoritiesReply(authority=authority_views(self.authorities))

    async def _invite_node(self, call: Call, request: pb.InviteNodeRequest) -> pb.InviteNodeReply:
        return await asyncio.to_thread(self._invite, call.caller().spiffe_id, request)

    def _invite(self, by: str, request: pb.InviteNodeRequest) -> pb.InviteNodeReply:
        check_name(request.name)
        valid_for = request.valid_for or self.settings.invite_valid_h * 3600
        if not 0 < valid_for <= MAX_INVITE_S:
            raise ConfigError(
                f"an invite must be valid for more than 0 and at most {MAX_INVITE_S / 3600:g} "
                f"hours (7 days), got {valid_for / 3600:g}"
            )
        servers_ca = bytes.fromhex(self.authorities.servers.fingerprint)
        invite = Invite(self.addresses["enrol"], make_token(), servers_ca)
        federation, now = self.authorities.federation, self._now()
        if end := self.authorities.ends.get(Kind.SERVER):  # the CA that the invite pins goes then
            valid_for = min(valid_for, end.timestamp() - now)
        node = self.store.add_invite(
            request.name,
            token_hash(invite.token),
            spiffe_id=make_spiffe(federation, Kind.NODE, Role.NODE, secrets.token_hex(16)),
            created_by=by,
            now=now,
            expires_at=now + valid_for,
            max_nodes=self.settings.limits.max_nodes,
        )
        detail = {"name": node.name, "by": by, "expires_at": now + valid_for}
        self.recorder.record("node-invited", node.spiffe_id, detail)
        return pb.InviteNodeReply(invite=invite.encode(), expires_at=now + valid_for)

    async def _list_nodes(self, _call: Call, _request: pb.ListNodesRequest) -> pb.ListNodesReply:
        nodes = await asyncio.to_thread(self.store.nodes)
        # If not all fit into the answer, those revoked long ago are left out.
        nodes.sort(key=lambda node: (node.revoked_at is None, node.revoked_at or 0.0))
        connected = self.presence.connected()
        return pb.ListNodesReply(node=newest(node_view(node, connected) for node in nodes))

    async def _show_node(self, _call: Call, request: pb.ShowNodeRequest) -> pb.ShowNodeReply:
        node = await asyncio.to_thread(self.store.node_by_name, request.name)
        events = await asyncio.to_thread(
            self.store.events, subject=node.spiffe_id, limit=EVENTS_SHOWN
        )
        return pb.ShowNodeReply(
            node=node_view(node, self.presence.connected()),
            event=newest(event_view(event) for event in events),
        )

    async def _revoke_node(self, call: Call, request: pb.RevokeNodeRequest) -> pb.RevokeNodeReply:
        connected = self.presence.connected()
        loop = asyncio.get_running_loop()
        revoked = await asyncio.to_thread(self._revoke, call.caller().spiffe_id, request, loop)
        return pb.RevokeNodeReply(was_connected=revoked.node.node_id in connected)

    def _revoke(
        self, by: str, request: pb.RevokeNodeRequest, loop: asyncio.AbstractEventLoop
    ) -> Revocation:
        """Revokes in the database, then in memory.

        Runs in a thread: nothing can end it half-way, be it that who asked has hung up.
        """
        reason = request.reason[:MAX_REASON]
        revoked = self.store.revoke_node(request.name, reason, self._now())
        detail = {
            "name": revoked.node.name,
            "by": by,
            "reason": reason,
            "serials": [f"{serial:x}" for serial in revoked.serials],
        }
        try:  # first, so that the log tells why before it tells of the connections that end
            self.recorder.record("node-revoked", revoked.node.spiffe_id, detail)
        finally:
            loop.call_soon_threadsafe(self._deny, revoked)
        return revoked

    def _deny(self, revoked: Revocation) -> None:
        self.denylist.deny_identity(revoked.node.spiffe_id, revoked.node.name)
        for serial in revoked.serials:
            self.denylist.deny_serial(serial)

    async def _publish_roster(
        self, call: Call, request: pb.PublishRosterRequest
    ) -> pb.PublishRosterReply:
        return await asyncio.to_thread(self._publish, call.caller().spiffe_id, request.roster)

    def _publish(self, by: str, signed: bytes) -> pb.PublishRosterReply:
        roster, missing = publish(self.layout, signed, self.store.nodes(), now=self.clock())
        ends_at = roster.not_after.timestamp()
        detail = {"by": by, "members": len(roster.members), "ends_at": ends_at}
        self.recorder.record("roster-published", f"roster {roster.serial}", detail)
        return pb.PublishRosterReply(
            serial=roster.serial,
            members=len(roster.members),
            ends_at=ends_at,
            missing=missing[:MISSING_SHOWN],
        )

    # --- runs --------------------------------------------------------------------------------

    async def _submit_run(self, call: Call, request: pb.SubmitRunRequest) -> pb.SubmitRunReply:
        run_id = await self.runs.submit(request.plan, call.caller().spiffe_id)
        return pb.SubmitRunReply(run_id=run_id)

    async def _list_runs(self, _call: Call, _request: pb.ListRunsRequest) -> pb.ListRunsReply:
        runs = await asyncio.to_thread(self.store.runs)
        return pb.ListRunsReply(run=newest(run_view(run, self.layout) for run in runs))

    async def _show_run(self, _call: Call, request: pb.ShowRunRequest) -> pb.ShowRunReply:
        run = await asyncio.to_thread(self.store.run, request.run_id)
        events = await asyncio.to_thread(self.store.events, run_id=run.run_id, limit=EVENTS_SHOWN)
        return pb.ShowRunReply(
            run=run_view(run, self.layout),
            plan=run.plan,
            event=newest(pb.RunEvent(event=event_view(event)) for event in events),
        )

    async def _watch_run(self, call: Call, request: pb.WatchRunRequest) -> None:
        """Sends the run, then its events and, after each change, the run again; until it ends."""
        run = await asyncio.to_thread(self.store.run, request.run_id)
        await call.send(pb.RunEvent(run=run_view(run, self.layout)))
        async with aclosing(self.recorder.watch(run.run_id)) as news:
            async for events in news:
                for event in events:
                    await call.send(pb.RunEvent(event=event_view(event)))
                before, run = run, await asyncio.to_thread(self.store.run, request.run_id)
                if run != before:
                    await call.send(pb.RunEvent(run=run_view(run, self.layout)))
                if run.state.final and len(events) < PAGE:
                    return

    async def _stop_run(self, call: Call, request: pb.StopRunRequest) -> pb.StopRunReply:
        state = await self.runs.stop(request.run_id, call.caller().spiffe_id)
        return pb.StopRunReply(state=state)

    async def _show_records(
        self, call: Call, request: pb.ShowRecordsRequest
    ) -> pb.ShowRecordsReply:
        found = await asyncio.to_thread(
            find_records, self.store, self.layout, request.run_id, request.round
        )
        if found.withheld:  # who has seen what the plan keeps from everybody else
            detail = {"by": call.caller().spiffe_id, "round": found.round}
            subject = run_subject(request.run_id)
            await asyncio.to_thread(
                self.recorder.record, "records-read", subject, detail, request.run_id
            )
        return reply(found)

    async def _fetch_model(self, call: Call, request: pb.FetchModelRequest) -> None:
        run = await asyncio.to_thread(self.store.run, request.run_id)
        path = await self.runs.model_path(run.run_id, request.round)
        detail = {"by": call.caller().spiffe_id, "file": path.name}
        await asyncio.to_thread(
            self.recorder.record, "model-taken", run_subject(run.run_id), detail, run.run_id
        )
        file = await asyncio.to_thread(path.open, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                await call.send(pb.ModelChunk(data=chunk))
        finally:
            file.close()
