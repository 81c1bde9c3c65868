"""Every key of a table ``[data.NAME]``, read from the schema itself."""

from fedsec.data.settings import CONNECTORS, READERS, Connector
from fedsec.plan.reference import table_of

HEAD = """\
# Every key of a data set

Made from the schema by `fedsec node data reference`. A data set is a table `[data.NAME]` in the
`node.toml` of a node; plans name it by NAME. `fedsec node data check NAME` reads it and says what
is in it.
"""
OWN = """
The connector `"digits"`, scikit-learn's handwritten digits, takes `partition`, `partitions`,
`split`, `alpha`, `shards_per_node` and `seed` only. A connector of another name is for a task of
one's own.
"""


def reference_page() -> str:
    """Returns the page, in Markdown."""
    parts = [HEAD, OWN, table_of(Connector, "[data.NAME]")]
    common = Connector.model_fields
    for name, model in CONNECTORS.items():
        if set(model.model_fields) - set(common):
            table = table_of(model, "[data.NAME]", without=common)
            heading = f'connector = "{name}"'
            read_by = f"\nFor the task `{READERS[name]}`."
            parts.append(table.replace("`[data.NAME]`\n", f"`{heading}`\n{read_by}\n", 1))
    return "".join(parts)
