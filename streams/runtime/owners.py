"""Who owns a partition, so that the broker knows it too.

At each assignment, before the tables are restored, the worker takes a new epoch for each of its partition numbers and
writes one row under it into each changelog (`fencing.py`). From that row on the broker refuses what earlier owners have
still to write, so the restore reads all that was ever accepted of them. A call, an answer or a next command leaves only
after a row that permits it has been acknowledged. So an earlier owner that wakes does no more than one that has died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import orjson
from aiokafka.errors import KafkaError

from streams.runtime.errors import AbandonedError, LostError
from streams.runtime.fencing import compares_epochs, names_of
from streams.runtime.lease import Lease
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.tables import DurableTable
from streams.topology import OWNERS

log = logging.getLogger(__name__)

#: Seconds within which a worker must have become the owner of what it was assigned; else it joins the group again.
TAKING = 30.0
#: Seconds between two rows of an owner. The broker forgets a producer that has written nothing for a day
#: (`producer.id.expiration.ms`), and would then take rows of earlier owners again.
KEEPING = 3_600.0
#: Seconds between two epochs of an owner. The coordinator forgets a name that has asked for none in a week
#: (`transactional.id.expiration.ms`), and would then give a new id, which refuses nobody.
RENEWING = 86_400.0


class Owners:
    """This worker as the owner of its partitions. `name` tells this process from all others."""

    def __init__(
        self, application_id: str, lives: Lives, lease: Lease, outbox: Outbox, name: str | None = None
    ) -> None:
        self.name = name or uuid4().hex
        self._application_id = application_id
        self._lives = lives
        self._lease = lease
        self._outbox = outbox
        self._tables: list[DurableTable[Any]] = []
        self._epochs: dict[int, tuple[int, int]] = {}
        self._on_lost: list[Callable[[], None]] = []
        #: Asks the group for a new assignment.
        self.rejoin: Callable[[], None] = lambda: None

    def keeps(self, table: DurableTable[Any]) -> None:
        """The table's changelog is one that only the owner writes."""
        self._tables.append(table)
        table.on_second_writer = self.refused

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call when partitions have been lost: they were not given up, and may be another worker's already."""
        self._on_lost.append(callback)

    @property
    def has_lost(self) -> bool:
        """Whether the partitions may be another worker's without this one having given them up."""
        return not self._lease.holds() or not self._lives.owned()

    def may_call(self, partition: int) -> bool:
        """Whether a call may be made for a partition now."""
        return self._lives.current(partition) is not None and self._lease.holds()

    async def check(self) -> None:
        """Find out whether the broker refuses earlier owners at all, and say so loudly where it does not."""
        try:
            async with asyncio.timeout(TAKING):
                refuses = await compares_epochs(self._outbox.producer, OWNERS, f"{self._application_id}-owner-probe")
        except (TimeoutError, KafkaError) as error:
            log.warning("epochs_not_checked: %s: whether the broker compares producers' epochs", type(error).__name__)
            return
        if not refuses:
            log.error(
                "epochs_not_compared: this broker takes rows of a worker whose partitions have another owner: a worker "
                "that stood still can write over its successor. Use a broker with producer fencing, as Apache Kafka has"
            )

    # Taking and giving up ------------------------------------------------------------------------------------------

    async def take(self, partitions: Iterable[int], generation: int) -> None:
        """Become the owner of these and of no others. Raises LostError where that cannot be had in time."""
        self.give_up()
        wanted = sorted(set(partitions))
        try:
            async with asyncio.timeout(TAKING):
                await self._take(wanted, generation)
        except (TimeoutError, AbandonedError, KafkaError) as error:
            self.give_up()
            raise LostError(f"{type(error).__name__}: {error}") from error
        except LostError:
            self.give_up()
            raise
        log.info("partitions_owned: %s", wanted)

    async def _take(self, partitions: list[int], generation: int) -> None:
        # Asked right before: one who comes late must not refuse the rightful owner.
        self._check_lease()
        producer = self._outbox.producer
        producer.on_refused = self.refused
        names = names_of(self._application_id, partitions)
        epochs = await asyncio.gather(*(producer.take_epoch(names[partition]) for partition in partitions))
        self._check_lease()
        self._epochs = dict(zip(partitions, epochs, strict=True))
        for partition, life in self._lives.begin(partitions, generation).items():
            producer.own(life, *self._epochs[partition])
        fences = [table.fence(life, self._note(life.partition)) for life in self._now() for table in self._tables]
        await arrived([asyncio.ensure_future(fence) for fence in fences])

    def _check_lease(self) -> None:
        if not self._lease.holds():
            raise LostError("the group has not been heard of for too long")

    def _note(self, partition: int) -> bytes:
        producer_id, epoch = self._epochs[partition]
        return orjson.dumps({"owner": self.name, "producer_id": producer_id, "epoch": epoch})

    def give_up(self) -> None:
        """Own nothing any more. What waits to be written is not written."""
        self._outbox.disown(self._lives.owned())
        self._lives.end()

    def refused(self, life: Life) -> None:
        """The broker has refused this worker as the owner, or somebody else has written there."""
        if self._lives.is_current(life):
            self.lose("the broker has taken rows of another owner")

    def lose(self, why: str) -> None:
        """The partitions may be somebody else's: give up everything at once, and join the group again."""
        log.warning("partitions_lost: %s; the worker joins its group again", why)
        self.give_up()
        for callback in self._on_lost:
            callback()
        self.rejoin()

    # Staying the owner ---------------------------------------------------------------------------------------------

    async def keep(self, keeping: float = KEEPING, renewing: float = RENEWING) -> None:
        """Stay known to the broker as the owner, until cancelled. The arguments are in seconds."""
        clock = asyncio.get_running_loop().time
        renewed_at = clock()
        while True:
            await asyncio.sleep(keeping)
            try:
                async with asyncio.timeout(TAKING):
                    if clock() - renewed_at >= renewing:
                        await self._renew()
                        renewed_at = clock()
                    await self._say_again()
            except (TimeoutError, AbandonedError, KafkaError) as error:
                log.warning("owner_unsaid: %s: tried again in %g s", type(error).__name__, keeping)

    async def _renew(self) -> None:
        producer = self._outbox.producer
        names = names_of(self._application_id, self._lives.owned())
        for life in self._now():
            epoch = await producer.take_epoch(names[life.partition])
            if self._lives.is_current(life):
                self._epochs[life.partition] = epoch
                producer.renew(life, *epoch)

    async def _say_again(self) -> None:
        for life in self._now():
            for table in self._tables:
                await table.keep(life, self._note(life.partition))

    def _now(self) -> list[Life]:
        """The lives as they are now, in the order of their partitions."""
        return [life for partition in sorted(self._lives.owned()) if (life := self._lives.current(partition))]
