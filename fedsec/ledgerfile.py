"""The privacy ledger on disk: what is spent is written down before what it pays for is released.

    charge --lock--> read what others charged --> charged before? --yes--> forced to the disk
                                                        | no
                                                  within the budget? --no--> BudgetExhausted
                                                        | yes
                                                  appended, forced to the disk --> release

One file per federation on the coordinator, one per node. Every process of the program that
releases something charges it here by itself; the file's lock makes decision and record one step.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from fedsec.auditlog import AuditLog, Record, utc_now
from fedsec.errors import ConfigError, StateError
from fedsec.privacy.events import Price
from fedsec.privacy.ledger import Book, Budget, Charge, Column, Composer

LABEL = "privacy-ledger"

Budgets = Mapping[Column, Budget]
NO_BUDGETS: Budgets = MappingProxyType({})


def compose(prices: Sequence[Price], delta: float) -> float:
    """Returns the epsilon of all `prices` together; the accountant is imported when asked."""
    from fedsec.privacy.accounting import spent  # noqa: PLC0415 - takes seconds

    return spent(prices, delta)


class LedgerFile:
    """A privacy ledger. For any number of threads; other processes may have the same file open.

    Args:
        path: Of the file; made at the first charge, mode 0600.
        budgets: The most that may be spent, by column; one that is missing sets no limit.
        composer: Reckons what charges come to; asked only where there is a budget.
        clock: Aware UTC.
    """

    def __init__(
        self,
        path: Path,
        budgets: Budgets = NO_BUDGETS,
        composer: Composer = compose,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._path = path
        self._budgets = budgets
        self._composer = composer
        self._clock = clock
        self._mutex = threading.Lock()
        self._forget()

    def charge(self, charge: Charge) -> None:
        """Returns when the charge is in the ledger and on the disk; then release, not before.

        A charge that is there already is not made again: after a crash, charge again.

        Raises:
            BudgetExhausted: It would cost more than is left; nothing was charged.
            StateError: The ledger is damaged, or holds another charge of this key.
            ConfigError: The file cannot be written; nothing was charged.
        """
        with self._mutex, self._log.hold() as fresh:
            self._enter(fresh)
            if self._book.find(charge):
                self._log.sync()
                return
            budget = self._budgets.get(charge.guarantee.column)
            if budget is not None:
                self._book.admit(charge, budget, self._composer)
            self._log.append(charge.to_json())
            self._book.enter(charge)

    def check(self, charge: Charge) -> None:
        """Returns where the charge could be paid now; charges nothing.

        Raises:
            BudgetExhausted: It would cost more than is left.
            StateError: The ledger is damaged.
            ConfigError: The file cannot be read.
        """
        budget = self._budgets.get(charge.guarantee.column)
        if budget is None:
            return
        with self._mutex:
            self._enter(self._log.read())
            self._book.admit(charge, budget, self._composer)

    def charged(self, run: str) -> int:
        """Returns how many releases of a run were charged."""
        with self._mutex:
            self._enter(self._log.read())
            return sum(charge.run == run for charge in self._book.charges)

    def entries(self) -> list[tuple[Record, Charge]]:
        """Returns every record with its charge, in order; nothing is written.

        Raises:
            StateError: The ledger is damaged.
            ConfigError: The file cannot be read.
        """
        log = AuditLog(self._path, LABEL, self._clock)
        return [(record, self._charge(record)) for record in log.read()]

    def _enter(self, fresh: Sequence[Record]) -> None:
        try:
            for record in fresh:
                self._book.enter(self._charge(record))
        except StateError:
            self._forget()  # else the next call would take the rest for all there is
            raise

    def _charge(self, record: Record) -> Charge:
        try:
            return Charge.from_json(record.body)
        except ConfigError as error:
            raise StateError(
                f"{self._path}, record {record.number}: {error}; it may be of a later version of "
                "fedsec: use that one"
            ) from error

    def _forget(self) -> None:
        self._log = AuditLog(self._path, LABEL, self._clock)
        self._book = Book()
