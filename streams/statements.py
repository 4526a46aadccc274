"""Statements: how each workspace's month stands, said to everybody on `ai.budget.state`."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping
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
from streams.runtime.outbox import Outbox, arrived, has_failed
from streams.runtime.transport import DrainSignal
from streams.topology import BUDGET_STATE
from streams.workspaces import Workspaces

log = logging.getLogger(__name__)

#: Seconds between two looks at what has changed.
INTERVAL = 1.0


class Statements:
    """Tells of each account that has changed, and of all accounts of a partition that this worker was given.

    Nobody waits for a statement, and one that the broker does not take is made again. Before each round the broker has
    taken a row of each partition that is told of. A worker that has lost a partition has that row refused, and does not
    put old figures over its successor's.

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
        await self.tell_changes(self._owned)

    async def tell_changes(self, owned: Callable[[], Iterable[int]] | None = None) -> None:
        """Tell of the accounts that have changed since the last time, in these partitions or in all."""
        changed = self._workspaces.take_changed()
        wanted = set(changed.values()) if owned is None else set(changed.values()).intersection(owned())
        own = {partition for partition in wanted if await self._is_own(partition, changed)}
        # Asked again: the broker may have taken a while.
        own = own if owned is None else own.intersection(owned())
        for key, partition in changed.items():
            if partition not in own:
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

    async def _is_own(self, partition: int, changed: Mapping[str, int]) -> bool:
        """Whether the broker takes a row of the partition. Where it cannot say, the accounts are told of later."""
        try:
            await arrived(await self._workspaces.permit(partition))
        except AbandonedError:
            return False
        except Exception as error:  # noqa: BLE001 - one partition must not silence all others
            log.warning("statements_unsaid: partition %s: %s", partition, type(error).__name__)
            for key in (key for key, place in changed.items() if place == partition):
                self._workspaces.touch_account(key, partition)
            return False
        return True

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
