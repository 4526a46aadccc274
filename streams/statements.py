"""Statements: how each workspace's month stands, said to everybody on `ai.budget.state`."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import partial
from typing import Any

from schemas.budget import BudgetState
from schemas.codec import encode, event_headers
from schemas.money import usd
from streams.accounts import Account, dollars, of_key
from streams.budgets import BudgetBook
from streams.metrics import NO_METRICS, Metrics
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.faults import Whose, judge
from streams.runtime.outbox import Outbox, has_failed
from streams.runtime.transport import DrainSignal
from streams.topology import BUDGET_STATE
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)

#: Seconds between two looks at what has changed.
INTERVAL = 1.0


class Statements:
    """Tells of each account that has changed, and of all accounts of a partition that this worker was given.

    Nobody waits for a statement, and one that the broker does not take is made again. It goes under the epoch of the
    partition's owner. Its successor says all accounts first, so that a worker that has lost the partition has its
    statements refused, and does not put old figures over newer ones.

    `owned` names the partitions that are this worker's.
    """

    def __init__(
        self,
        *,
        workspaces: Workspaces,
        budgets: BudgetBook,
        outbox: Outbox,
        drain: DrainSignal,
        owned: Callable[[], Iterable[int]],
        clock: Callable[[], datetime],
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self._metrics = metrics
        self._workspaces = workspaces
        self._budgets = budgets
        self._outbox = outbox
        self._drain = drain
        self._owned = owned
        self._clock = clock
        #: After which drain each partition's accounts were last all told of.
        self._told: dict[int, int] = {}
        # The last word on partitions that go elsewhere.
        drain.on_drained(self.tell_changes)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            if not self._drain.draining:
                await self.tell()

    async def tell(self) -> None:
        """Tell of what has changed since the last time.

        Not of partitions that have gone meanwhile: their owner does, and of all accounts if they come back.
        """
        for partition in self._owned():
            if self._told.get(partition) != self._drain.ended:
                try:
                    await self._workspaces.touch_accounts(partition)
                except AbandonedError:
                    continue  # Its table is on its way.
                except Exception as error:  # noqa: BLE001 - one bad row must not silence all partitions
                    log.warning("statements_unsaid: partition %s: %s", partition, type(error).__name__)
                    if judge(error) is not Whose.UNKNOWN:
                        continue  # A full disk, say: they are told of when there is room.
                self._told[partition] = self._drain.ended
        # Asked again: reading the accounts takes a while.
        await self.tell_changes(set(self._owned()))

    async def tell_changes(self, owned: Collection[int] | None = None) -> None:
        """Tell of the accounts that have changed since the last time, in these partitions or in all."""
        for key, partition in self._workspaces.take_changed().items():
            if owned is not None and partition not in owned:
                continue
            workspace_id, month = of_key(key)
            try:
                account = self._workspaces.account(workspace_id, month, partition)
                self._metrics.stands(workspace_id, month, account, partition)
                # As the owner: what an earlier one has still to say must not be the last word.
                life = self._workspaces.life(partition)
                said = await self._outbox.post_row(self._record(workspace_id, month, account, partition), life)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must not go untold for it
                log.warning("statement_unsaid: %s: %s", key, type(error).__name__)
                if judge(error) is not Whose.UNKNOWN and not isinstance(error, AbandonedError):
                    self._workspaces.touch_account(key, partition)
            else:
                said.add_done_callback(partial(self._arrived, key, partition))

    def _arrived(self, key: str, partition: int, said: Future[Any]) -> None:
        """What the broker did not take is said again, as it stands by then: its workspace may never change again."""
        if has_failed(said):
            self._workspaces.touch_account(key, partition)

    def _record(self, workspace_id: str, month: str, account: Account, partition: int) -> Record:
        state = self.state(workspace_id, month, account)
        headers = event_headers(
            event_id=f"{state.key}/{state.at.isoformat()}",
            event_type=state.ce_type,
            workspace_id=workspace_id,
            time=state.at,
        )
        return Record(BUDGET_STATE, state.key.encode(), encode(state), headers, partition)

    def state(self, workspace_id: str, month: str, account: Account) -> BudgetState:
        budget = self._budgets.of(workspace_id)
        return BudgetState(
            workspace_id=workspace_id,
            month=month,
            limit=usd(budget.amount),
            action=budget.action,
            spent=dollars(account.spent),
            reserved=dollars(account.reserved),
            open_requests=account.open_requests,
            at=self._clock(),
        )
