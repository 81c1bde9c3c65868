"""The sites of a run side by side: how the model does at each, and what each would have alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from fedsec.console import table
from fedsec.flower.reporting import CENTRAL

ALONE = "alone-"
EXAMPLES = "examples"
LESS_IS_BETTER = ("loss", "mae")
HEADLINES = ("accuracy", "auc", "r2", "mae", "loss")  # the first that there is says who is better
POOLED = "all, by records"


@dataclass(frozen=True, slots=True)
class Sites:
    """Figures of one evaluation.

    Args:
        figures: Of each site by node id: ``"examples"`` and every figure it told.
        pooled: Of all sites together.
        central: Names of the figures that the round told of central tests instead.
    """

    figures: Mapping[str, Mapping[str, float]]
    pooled: Mapping[str, float]
    central: frozenset[str] = frozenset()

    @classmethod
    def of(cls, detail: Mapping[str, object]) -> "Sites | None":
        """Returns the figures in a round's event; None where it holds none."""
        sites = detail.get("sites")
        if not isinstance(sites, Mapping) or not sites:
            return None
        figures = {str(node): _numbers(values) for node, values in sites.items()}
        central = detail.get(CENTRAL)
        names = map(str, central) if isinstance(central, list) else ()
        return cls(figures, _numbers(detail.get("pooled")), frozenset(names))

    @property
    def names(self) -> list[str]:
        """Names of the figures of the federated model, loss first."""
        found = {name for values in self.figures.values() for name in values}
        plain = {name for name in found if not name.startswith(ALONE)} - {EXAMPLES}
        return sorted(plain, key=lambda name: (name != "loss", name))

    @property
    def compared(self) -> bool:
        """Whether there are figures of models that sites trained alone."""
        return any(name.startswith(ALONE) for each in self.figures.values() for name in each)

    def table(self, names: Mapping[str, str]) -> Table:
        """Returns a row per site, and one for all.

        Args:
            names: Node id to name.
        """
        columns = ["site", ">tests"]
        keys: list[str] = []
        for name in self.names:
            columns.append(f">{name}")
            keys.append(name)
            if self.compared:
                columns.append(">alone")
                keys.append(f"{ALONE}{name}")
        total = sum(each.get(EXAMPLES, 0.0) for each in self.figures.values())
        rows = [
            (names.get(node, node), f"{each.get(EXAMPLES, 0):.0f}", *_cells(each, keys))
            for node, each in sorted(self.figures.items(), key=lambda i: names.get(i[0], i[0]))
        ]
        rows.append((POOLED, f"{total:.0f}", *_cells(self.pooled, keys)))
        return table(columns, rows, title="\nSites")

    def verdict(self) -> str:
        """Returns where the federated model is better than each site's own; empty if unknown."""
        for name in HEADLINES:
            pairs = [
                (each[name], each[f"{ALONE}{name}"])
                for each in self.figures.values()
                if name in each and f"{ALONE}{name}" in each
            ]
            if pairs:
                sign = -1 if name in LESS_IS_BETTER else 1
                better = sum(sign * together > sign * alone for together, alone in pairs)
                even = sum(together == alone for together, alone in pairs)
                drawn = f", even at {even}" if even else ""
                return f"federated is better at {better} of {len(pairs)} sites{drawn}, by {name}"
        return ""


def _cells(values: Mapping[str, float], keys: list[str]) -> list[str | None]:
    return [f"{values[key]:.4f}" if key in values else None for key in keys]


def _numbers(values: object) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
