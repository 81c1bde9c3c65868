"""The commands of docs/quickstart.md, as a script that a shell runs."""

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "quickstart.md"
RUNNING = "until fedsec server status > status.txt 2>&1; do sleep 0.2; done"


def commands() -> list[str]:
    """Returns the commands of the page, in order."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def script(between: dict[str, str]) -> str:
    """Returns them as a script, for a directory of its own.

    Args:
        between: What else is done before the first command that begins with a key.
    """
    left = dict(between)
    lines = ["set -eu", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    for command in commands():
        lines += [left.pop(begin) for begin in list(left) if command.startswith(begin)]
        lines.append(f"echo '$ {command[:30]}'")
        lines.append(command.replace("python examples", f"{sys.executable} {CHECKOUT}/examples"))
        if command.startswith("fedsec server init"):
            lines[-1] += " --port 0"  # whatever else runs on this machine
        if command.startswith("export FEDSEC_SERVER_DIR"):
            lines.append(RUNNING)
    assert not left, f"the page has no command that begins with {list(left)}"
    return "\n".join(lines) + "\n"
