"""The webhook: every alert of `ai.budget.alerts`, posted to one address as `{"text": …}`, at least once.

It reads the topic in a consumer group of its own and not as an agent of the worker: while the address does not answer,
alerts wait in Kafka, and nothing else does. The workers share the group, so each alert is posted by one of them. The
first of all looks at what is announced from its start on, later ones go on where the last delivery ended.

Whoever knows the address may post there. It is a secret: no message here holds it, nor what a library says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from http import HTTPStatus

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from app.alerts.message import text_of
from app.kafka import cluster_of
from app.settings import Settings
from schemas.alert import Alert, read_alert
from schemas.codec import UndecodableError
from streams.runtime.clock import utc_now
from streams.topology import BUDGET_ALERTS, webhook_group

log = logging.getLogger(__name__)

#: Seconds that one delivery may take.
TIMEOUT = 10.0
#: Seconds before the first repetition and at most, and the longest that a `retry-after` is believed.
FIRST_WAIT, LONGEST_WAIT, LONGEST_ASKED = 1.0, 60.0, 300.0
#: Seconds between tries when Kafka is away.
KAFKA_RETRY = 2.0
#: Milliseconds that may pass between two reads of a member of the group. By default one that waits for the address
#: longer than five minutes would be put out of it.
PATIENCE_MS = 24 * 3_600_000


class Verdict(Enum):
    """What an answer means for an alert."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    AGAIN = "again"


_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


def verdict(status: int) -> Verdict:
    """Server errors and 408, 425 and 429 pass; the rest of what is no success will be the same tomorrow."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict.DELIVERED
    passes = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING
    return Verdict.AGAIN if passes else Verdict.REFUSED


def pause(tries: int, asked: str | None, jitter: float) -> float:
    """Seconds until the next try: what `retry-after` asks, else doubled with each try. `jitter` is from 0 to 1."""
    if asked is not None and asked.strip().isdecimal():
        return min(float(asked), LONGEST_ASKED) + jitter
    longest = min(FIRST_WAIT * 2.0 ** min(tries - 1, 30), LONGEST_WAIT)
    return longest / 2 + jitter * longest / 2


class Webhook(ConsumerRebalanceListener):  # type: ignore[misc]
    """Posts alerts from its start to its stop, in a task of its own. `clock` is the one that stamps them."""

    def __init__(self, settings: Settings, address: SecretStr, clock: Callable[[], datetime] = utc_now) -> None:
        self._cluster = cluster_of(settings)
        self._group = webhook_group(settings.kafka_application_id)
        self._address = address
        self._clock = clock
        self._since = 0
        self._consumer: AIOKafkaConsumer | None = None
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._since = int(self._clock().timestamp() * 1000)
        self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait({self._working})

    async def _work(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            while True:
                try:
                    await self._read(session)
                except (KafkaError, OSError) as error:
                    log.warning("webhook_waits_for_kafka: %s", type(error).__name__)
                except Exception as error:  # noqa: BLE001 - it must neither end nor end the worker
                    log.error("webhook_fault: %s", type(error).__name__)  # noqa: TRY400 - it may quote the address
                await asyncio.sleep(KAFKA_RETRY)

    async def _read(self, session: aiohttp.ClientSession) -> None:
        """Post what comes until Kafka fails. What was not committed comes again."""
        consumer = self._consumer = self._cluster.consumer(group_id=self._group, max_poll_interval_ms=PATIENCE_MS)
        try:
            consumer.subscribe([BUDGET_ALERTS], listener=self)
            await consumer.start()
            while True:
                record = await consumer.getone()
                place = TopicPartition(record.topic, record.partition)
                if await self._handle(session, record, place):
                    await consumer.commit({place: record.offset + 1})
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await consumer.stop()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to do: an alert that is being posted is posted again by whoever gets its partition."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """A partition that this group has never read is read from the start of this worker on."""
        consumer = self._consumer
        if consumer is None:
            return
        fresh = [place for place in assigned if await consumer.committed(place) is None]
        if not fresh:
            return
        # The ends first: an alert that comes between the two questions is then behind the end, and is read.
        ends = await consumer.end_offsets(fresh)
        found = await consumer.offsets_for_times(dict.fromkeys(fresh, self._since))
        begin = {place: found[place].offset if found.get(place) else ends[place] for place in fresh}
        for place, offset in begin.items():
            consumer.seek(place, offset)
        await consumer.commit(begin)

    async def _handle(self, session: aiohttp.ClientSession, record: ConsumerRecord, place: TopicPartition) -> bool:
        """True when nothing is left to do for this record; False when it is another worker's now."""
        try:
            alert = read_alert(record.value)
        except UndecodableError:
            log.warning("alert_ignored: %s[%s]@%s is no alert", record.topic, record.partition, record.offset)
            return True
        tries = 0
        while self._consumer is not None and place in self._consumer.assignment():
            found, asked = await self._post(session, alert)
            if found is not Verdict.AGAIN:
                return True
            tries += 1
            await asyncio.sleep(pause(tries, asked, random.random()))  # noqa: S311 - jitter
        return False

    async def _post(self, session: aiohttp.ClientSession, alert: Alert) -> tuple[Verdict, str | None]:
        """What became of one try, and the wait that the other side asked for."""
        try:
            async with session.post(
                self._address.get_secret_value(),
                json={"text": text_of(alert)},
                headers={"ce-id": alert.event_id},
                allow_redirects=False,
            ) as response:
                found, status, asked = verdict(response.status), response.status, response.headers.get("retry-after")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("webhook_away: %s: %s", alert.event_id, type(error).__name__)
            return Verdict.AGAIN, None
        if found is Verdict.DELIVERED:
            log.info("alert_posted: %s", alert.event_id)
        elif found is Verdict.REFUSED:
            log.error("alert_refused: %s: the webhook answered %s, and is not asked again", alert.event_id, status)
        else:
            log.warning("webhook_refused: %s: it answered %s", alert.event_id, status)
        return found, asked
