"""What must be true of every history when it is over. Each check gives the words for what is not."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from schemas.budget import BudgetState
from schemas.codec import decode
from schemas.internal import AttemptReport
from schemas.response import Response
from schemas.usage import Outcome, UsageEvent
from streams.accounts import ACCOUNTS, Account, nanos
from streams.rows import decode_row
from streams.runtime.tables import OWN_KEYS
from streams.topology import (
    BUDGET_STATE,
    DEAD_LETTERS,
    MARK_TABLE,
    REPORTS,
    REQUEST_TABLE,
    RESPONSES,
    USAGE,
    dispatch_topic,
)
from tests.simulation.history import History, Made
from tests.simulation.worker import BUDGET, PROVIDERS, REPLIES_TO, THRIFTY, TOPOLOGY, Worker

#: How often the same may be said: at each delivery, and again where an answer of the broker was lost. Each time when
#: partitions change hands it may be delivered again, by two reports at most.
MOST_TELLINGS, AT_A_REBALANCE = 12, 2

#: Seconds of silence after which others may take a worker for dead: it says a few times per session that it lives. And
#: the seconds in which the report of a call that has ended is on its way.
SILENCE, AFTERWARDS = 3.0, 3.0
#: Attempts that end before their call may be in the ledger, at no cost.
UNCALLED = ("cancelled", "not_sent")


def faults_of(seed: int, **told: Any) -> list[str]:
    """What is wrong in the history of a seed."""
    history = History(seed, **told)
    try:
        history.run()
        return wrong(history)
    finally:
        history.end()


def wrong(history: History) -> list[str]:
    """All that is not as it must be; nothing is well."""
    checks = (_ended, _answered, _counted, _known, _booked, _kept, _bounded, _unburied, _calm)
    return [words for check in checks for words in check(history)]


def ledger(history: History) -> dict[str, UsageEvent]:
    """One row per attempt: what is known beats what was in doubt, as in the real ledger."""
    rows: dict[str, UsageEvent] = {}
    for usage in _usage(history):
        if usage.attempt_id not in rows or usage.version > rows[usage.attempt_id].version:
            rows[usage.attempt_id] = usage
    return rows


def _usage(history: History) -> list[UsageEvent]:
    return [decode(UsageEvent, record.value) for record in history.broker.records(USAGE)]


def _ended(history: History) -> Iterator[str]:
    """Whatever waits is read again."""
    for place, behind in history.waiting().items():
        yield f"{place.topic}[{place.partition}]: {behind} records wait for ever"
    for worker in history.living():
        if left := len(worker.app.consumer.deliveries):
            yield f"{worker.process.name}: {left} events are worked on for ever"
        if reasons := [f"{name}: {pause.reason}" for name, pause in worker.app.pauses.items() if pause.is_on]:
            yield f"{worker.process.name} stays paused: {reasons}"


def _answered(history: History) -> Iterator[str]:
    """No request lost, one terminal response; the same one, if it is said more than once."""
    answers: defaultdict[str, list[Response]] = defaultdict(list)
    for record in history.broker.records(RESPONSES):
        response = decode(Response, record.value)
        answers[response.request_id].append(response)
    for request in history.published:
        if request not in answers:
            yield f"{request} was lost"
    for request, responses in answers.items():
        if any(response != responses[0] for response in responses):
            yield f"{request} has two answers: {[str(response.status) for response in responses]}"
    replied = Counter(record.key for record in history.broker.records(REPLIES_TO))
    if replied and not set(replied) <= {None, *(name.encode() for name in history.published)}:
        yield f"replies to nobody: {set(replied)}"


def _counted(history: History) -> Iterator[str]:
    """No call without a report or a doubt, none twice, and none in the ledger that was not made."""
    made = Counter(call.attempt for call in history.journal)
    rows = ledger(history)
    for attempt, times in made.items():
        if times > 1:
            yield f"{attempt} was called {times} times"
        if attempt not in rows:
            yield f"{attempt} was called and is not in the ledger"
    for attempt, row in rows.items():
        if attempt not in made and row.outcome is not Outcome.IN_DOUBT and row.error_code not in UNCALLED:
            yield f"{attempt} is in the ledger as {row.outcome} and was never called"
    doubted: set[str] = set()
    said: defaultdict[str, list[Outcome]] = defaultdict(list)
    for usage in _usage(history):
        if usage.outcome is Outcome.IN_DOUBT:
            doubted.add(usage.request_id)
        if usage.outcome not in said[usage.attempt_id]:
            said[usage.attempt_id].append(usage.outcome)
    first = _first_reports(history)
    for attempt, outcomes in said.items():
        # A call that goes on where its partition has gone is first in doubt, and then known.
        was_in_doubt = first[attempt] is Outcome.IN_DOUBT and Outcome.IN_DOUBT in outcomes
        if len(outcomes) > 2 or (len(outcomes) == 2 and not was_in_doubt):
            yield f"{attempt} is told in several ways: {[str(outcome) for outcome in outcomes]}"
    succeeded = Counter(row.request_id for row in rows.values() if row.outcome is Outcome.SUCCEEDED)
    for request, times in succeeded.items():
        if times > 1 and request not in doubted:
            yield f"{request} was answered and paid {times} times"


def _first_reports(history: History) -> dict[str, Outcome]:
    """What was found out first of each attempt. All reports of a request are in one partition."""
    first: dict[str, Outcome] = {}
    for record in history.broker.records(REPORTS):
        usage = decode(AttemptReport, record.value).usage
        if usage is not None:
            first.setdefault(usage.attempt_id, usage.outcome)
    return first


def _known(history: History) -> Iterator[str]:
    """In doubt is only what nobody can know: its process died, or could not be heard of, before it had reported."""
    reported: dict[str, float] = {}
    for record in history.broker.records(REPORTS):
        report = decode(AttemptReport, record.value)
        usage = report.usage
        if usage is not None and usage.outcome is not Outcome.IN_DOUBT:
            reported.setdefault(usage.attempt_id, record.timestamp)
    made = {call.attempt: call for call in history.journal}
    for attempt, row in ledger(history).items():
        if row.error_code != "interrupted":
            continue
        call = made.get(attempt)
        if call is None:
            # Its mark is all that there is of it: the process died between the mark and the call.
            if all(process.is_alive for process in history.processes) and not _drained(history):
                yield f"{attempt} is in doubt, was never called, and nothing has died"
        elif attempt in reported or not _was_cut(call, history):
            yield f"{attempt} is in doubt, and {call.worker.process.name} knew it"


def _drained(history: History) -> bool:
    return any(worker.app.drain.count for worker in history.workers.values())


def _was_cut(call: Made, history: History) -> bool:
    """Whether its process has died, or was silent for so long that it may as well have."""
    process, until = call.worker.process, (call.ended_at or math.inf) + AFTERWARDS
    return not process.is_alive or any(
        silent is process and end - begin >= SILENCE and begin < until and end > call.begun_at
        for silent, begin, end in history.silences
    )


def _booked(history: History) -> Iterator[str]:
    """Accounts are the reports, and nothing is reserved for what has ended."""
    spent: Counter[str] = Counter()
    for row in ledger(history).values():
        spent[row.workspace_id] += nanos(row.cost)
    booked: Counter[str] = Counter()
    states = {
        state.key: state
        for record in history.broker.records(BUDGET_STATE)
        for state in [decode(BudgetState, record.value)]
    }
    for partition in range(TOPOLOGY.partitions):
        for key, stored in history.broker.rows(TOPOLOGY.changelog(REQUEST_TABLE), partition).items():
            account = decode_row(stored)
            if isinstance(account, Account):
                workspace = key.decode().removeprefix(ACCOUNTS).partition("/")[0]
                booked[workspace] += account.spent
                if account.reserved or account.open_requests:
                    held = account.reserved, account.open_requests
                    yield "{}: {} reserved for {} requests that have ended".format(workspace, *held)
                said = states.get(key.decode().removeprefix(ACCOUNTS))
                if said is None or (nanos(said.spent), nanos(said.reserved)) != (account.spent, account.reserved):
                    yield f"what was said of {workspace} is not its account"
    if spent[THRIFTY] > nanos(BUDGET) and not _drained(history) and all(each.is_alive for each in history.processes):
        yield f"{THRIFTY} has spent {spent[THRIFTY]}, with a budget of {BUDGET} that refuses"
    for workspace in sorted({*spent, *booked}):
        if spent[workspace] != booked[workspace]:
            yield f"{workspace}: {booked[workspace]} in its account, {spent[workspace]} in the ledger"


def _kept(history: History) -> Iterator[str]:
    """Tables made anew from their changelogs are what their owners have.

    Not so the lanes': a successor may find a claim where its predecessor has noted, or not, what was truly spent.
    """
    for worker in history.living():
        for name in (REQUEST_TABLE, MARK_TABLE):
            for (table, partition), store in sorted(worker.disk.stores.items()):
                owned = any(tp.partition == partition for tp in worker.app.consumer.assignment())
                if table != name or not owned:
                    continue
                local = {key: value for key, value in store.rows.items() if not key.startswith(OWN_KEYS)}
                # A disk that was full may have room for it by now, and nobody has tried.
                part = worker.durable[table]._parts.get(partition)
                for row, _ in part.arrived if part is not None else ():
                    local.pop(row.key, None)
                    local |= {row.key: row.value} if row.value is not None else {}
                anew = history.broker.rows(TOPOLOGY.changelog(table), partition)
                differ = sorted(key for key in {*local, *anew} if local.get(key) != anew.get(key))
                if differ:
                    yield f"{table}[{partition}]: {len(differ)} rows differ from the changelog: {differ[:3]}"


def _bounded(history: History) -> Iterator[str]:
    """Nothing waits, so nothing is kept for it."""
    for worker in history.living():
        for what, size in _sizes(worker).items():
            if size:
                yield f"{worker.process.name}: {what} holds {size} when nothing waits"


def _sizes(worker: Worker) -> dict[str, int]:
    sizes: dict[str, int] = {"bytes of reports": worker.unreported.bytes}
    consumer: Any = worker.app.consumer
    sizes["put aside"] = sum(len(waiting) for waiting in consumer._aside.values())
    for name, dispatcher in worker.dispatchers.items():
        sizes |= {
            f"{name}'s visits": len(dispatcher._at_work),
            f"{name}'s backlog": len(dispatcher._crew._urgent)
            + len(dispatcher._crew._backlog)
            + dispatcher._crew._busy,
            f"{name}'s tasks": len(dispatcher._loop._tasks),
        }
    for name, station in worker.stations._stations.items():
        desk: Any = station.desk
        sizes |= {
            f"{name}'s queue": desk.waiting,
            # It may keep so many that have left, and tidies up beyond.
            f"{name}'s requests with a fallback": max(len(desk._movable) - 64, 0),
            f"{name}'s calls": station.lane.in_flight,
        }
    for name, stage in worker.app.stages.items():
        sizes[f"{name}'s events"] = len(getattr(stage, "_tasks", ()))
    return sizes


def _calm(history: History) -> Iterator[str]:
    """However long something is away, nobody is told the same over and over."""
    most = MOST_TELLINGS + AT_A_REBALANCE * history.broker.group.generation
    for topic in (RESPONSES, USAGE, REPORTS, *map(dispatch_topic, PROVIDERS)):
        told = Counter((record.key, record.value) for record in history.broker.records(topic))
        for (_, value), times in told.most_common(1):
            if times > most:
                yield f"{topic}: the same was said {times} times: {(value or b'')[:80]!r}"


def _unburied(history: History) -> Iterator[str]:
    """Nobody has published anything that belongs there."""
    for record in history.broker.records(DEAD_LETTERS):
        told = dict(record.headers)
        yield f"buried: {told.get('kafka_dlt-exception-message')!r}"
