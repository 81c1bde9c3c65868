"""Reading a plan must stay cheap: the coordinator, the agent and the command line all do it."""

import json
import subprocess
import sys

HEAVY = {"torch", "flwr", "grpc", "sqlalchemy", "numpy", "sklearn", "scipy", "google"}


def test_a_plan_is_read_without_heavy_imports() -> None:
    script = (
        "import json, sys; import fedsec.plan as p; "
        "p.FederationPlan.parse(p.toml_example()); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "pydantic" in loaded
    assert not loaded & HEAVY
