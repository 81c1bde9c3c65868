"""Who may call what: one table for every RPC of every service. What has no row is refused.

admin     everything that people may do: nodes and people come and go by an admin alone
operator  runs: submits, stops, takes models and records of nodes; sees everything
auditor   sees everything that no plan withholds, changes nothing, takes no model
node      the fleet listener, and nothing else
"""

from fedsec.identity.names import Role

_ADMINS = frozenset({Role.ADMIN})
_OPERATORS = frozenset({Role.ADMIN, Role.OPERATOR})
_PEOPLE = frozenset({Role.ADMIN, Role.OPERATOR, Role.AUDITOR})
_NODES = frozenset({Role.NODE})
_ANYONE: frozenset[Role] = frozenset()  # nobody has a certificate yet; the token decides

ROLES: dict[str, frozenset[Role]] = {
    "/fedsec.v1.Admin/Status": _PEOPLE,
    "/fedsec.v1.Admin/ReloadAuthorities": _ADMINS,
    "/fedsec.v1.Admin/InviteNode": _ADMINS,
    "/fedsec.v1.Admin/ListNodes": _PEOPLE,
    "/fedsec.v1.Admin/ShowNode": _PEOPLE,
    "/fedsec.v1.Admin/RevokeNode": _ADMINS,
    "/fedsec.v1.Admin/AddPerson": _ADMINS,
    "/fedsec.v1.Admin/ListPeople": _PEOPLE,
    "/fedsec.v1.Admin/RevokePerson": _ADMINS,
    "/fedsec.v1.Admin/PublishRoster": _ADMINS,
    "/fedsec.v1.Admin/SubmitRun": _OPERATORS,
    "/fedsec.v1.Admin/ListRuns": _PEOPLE,
    "/fedsec.v1.Admin/ShowRun": _PEOPLE,
    "/fedsec.v1.Admin/WatchRun": _PEOPLE,
    "/fedsec.v1.Admin/StopRun": _OPERATORS,
    "/fedsec.v1.Admin/FetchModel": _OPERATORS,
    "/fedsec.v1.Admin/ShowRecords": _OPERATORS,
    "/fedsec.v1.Fleet/Session": _NODES,
    "/fedsec.v1.Fleet/Fetch": _NODES,
    "/fedsec.v1.Fleet/Store": _NODES,
    "/fedsec.v1.Fleet/Renew": _NODES,
    "/fedsec.v1.Enrolment/Enrol": _ANYONE,
}
