"""What one step has done to requests and partitions, out of the provider's journal and the topics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

#: Seconds that a partition may be silent: when workers come and go in order, and when its owner was killed.
SILENT, SILENT_AFTER_A_KILL = 5.0, 15.0


@dataclass(frozen=True)
class Call:
    """A call that has begun. `at` is in seconds since 1970."""

    attempt: str
    worker: str
    at: float

    @property
    def request(self) -> str:
        return self.attempt.rsplit("/", 1)[0]


@dataclass(frozen=True)
class Step:
    """Something that was done to the workers. It was watched from `begin` to `end`, and what happens before `until` is
    its doing, all in seconds since 1970. `took` is how many seconds it was being done; `killed` is who was killed.
    """

    name: str
    begin: float
    end: float
    took: float
    killed: str | None = None
    until: float = float("inf")

    def has(self, moment: float) -> bool:
        return self.begin <= moment < self.until


def one_after_another(steps: Sequence[Step]) -> list[Step]:
    """Each is watched until the next begins."""
    begins = [step.begin for step in steps[1:]]
    return [
        *(replace(step, end=begin, until=begin) for step, begin in zip(steps, begins, strict=False)),
        *steps[-1:],
    ]


@dataclass
class Seen:
    """What was seen of the whole load. `partitions` has the partition of each request, by which all is grouped."""

    partitions: Mapping[str, int]
    calls: Sequence[Call] = ()
    #: When the call of an attempt has ended.
    ended: Mapping[str, float] = field(default_factory=dict)
    #: Request and moment of each answer.
    answers: Sequence[tuple[str, float]] = ()
    #: Each attempt that is in doubt in the ledger, and when its row was written.
    doubts: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Figures:
    """Of one step. Silences are in seconds, by partition."""

    step: Step
    on_the_wire: int
    #: Of these requests a call had begun before; by whom.
    again: Mapping[str, str]
    in_doubt: int
    #: Those of them whose worker was not killed.
    not_of_the_dead: int
    silences: Mapping[int, float]
    #: The partitions whose owner was killed.
    orphans: frozenset[int]

    @property
    def longest(self) -> float:
        """The longest silence of those whose owner was not killed."""
        return max((seconds for number, seconds in self.silences.items() if number not in self.orphans), default=0.0)

    @property
    def longest_of_orphans(self) -> float | None:
        return max((self.silences[number] for number in self.orphans), default=None)

    @property
    def wrong(self) -> list[str]:
        """In words. A kill leaves the calls of the dead in doubt, and nobody else's."""
        found = []
        again = sum(worker != self.step.killed for worker in self.again.values())
        if again:
            found.append(f"{again} requests called twice")
        if self.not_of_the_dead:
            found.append(f"{self.not_of_the_dead} in doubt")
        if self.longest > SILENT:
            found.append(f"a partition was silent for {self.longest:.1f} s")
        if (self.longest_of_orphans or 0.0) > SILENT_AFTER_A_KILL:
            found.append(f"a partition of the dead was silent for {self.longest_of_orphans:.1f} s")
        return found


def silence(moments: Iterable[float], begin: float, end: float) -> float:
    """The longest time between begin and end in which nothing happened."""
    within = sorted(moment for moment in moments if begin < moment < end)
    return max(after - before for before, after in zip([begin, *within], [*within, end], strict=True))


def figures(seen: Seen, step: Step) -> Figures:
    """A partition is silent when no call begins, or when nothing is answered, whichever is longer."""
    begun: dict[int, list[float]] = defaultdict(list)
    answered: dict[int, list[float]] = defaultdict(list)
    for call in seen.calls:
        begun[seen.partitions[call.request]].append(call.at)
    for request, moment in seen.answers:
        answered[seen.partitions[request]].append(moment)
    silences = {
        number: max(silence(moments[number], step.begin, step.end) for moments in (begun, answered))
        for number in sorted(set(seen.partitions.values()))
    }
    doubts = {attempt for attempt, moment in seen.doubts if step.has(moment)}
    orphans = _orphans(seen, step)
    return Figures(
        step=step,
        on_the_wire=sum(call.at < step.begin <= seen.ended.get(call.attempt, float("inf")) for call in seen.calls),
        again=_again(seen, step),
        in_doubt=len(doubts),
        not_of_the_dead=sum(not _was_of_the_dead(seen, step, orphans, attempt) for attempt in doubts),
        silences=silences,
        orphans=orphans,
    )


def _again(seen: Seen, step: Step) -> dict[str, str]:
    """The requests that were called once more in this step, and who had called them before."""
    callers: dict[str, str] = {}
    found = {}
    for call in sorted(seen.calls, key=lambda call: call.at):
        if call.request in callers and step.has(call.at):
            found[call.request] = callers[call.request]
        callers[call.request] = call.worker
    return found


def _was_of_the_dead(seen: Seen, step: Step, orphans: Collection[int], attempt: str) -> bool:
    """By who called it; one that was marked and never called is of its partition's owner."""
    if callers := {call.worker for call in seen.calls if call.attempt == attempt}:
        return callers == {step.killed}
    return seen.partitions[attempt.rsplit("/", 1)[0]] in orphans


def _orphans(seen: Seen, step: Step) -> frozenset[int]:
    """The partitions whose last call before the kill was by the worker that was killed."""
    if step.killed is None:
        return frozenset()
    owners: dict[int, str] = {}
    for call in sorted(seen.calls, key=lambda call: call.at):
        if call.at < step.begin:
            owners[seen.partitions[call.request]] = call.worker
    return frozenset(number for number, worker in owners.items() if worker == step.killed)


def called_twice(calls: Iterable[Call]) -> int:
    """Requests with more than one call."""
    return sum(count > 1 for count in Counter(call.request for call in calls).values())


def table(found: Sequence[Figures]) -> str:
    """As docs/benchmarks.md has it."""
    lines = [
        ("", *(one.step.name for one in found)),
        ("---",) * (len(found) + 1),
        ("until it was done, s", *(f"{one.step.took:.1f}" for one in found)),
        ("calls on the wire when it began", *(str(one.on_the_wire) for one in found)),
        ("requests called twice", *(str(len(one.again)) for one in found)),
        ("attempts in doubt", *(str(one.in_doubt) for one in found)),
        ("longest silence of a partition, s", *(f"{one.longest:.1f}" for one in found)),
        ("the same of the killed worker's, s", *(_seconds(one.longest_of_orphans) for one in found)),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" if cells[0] != "---" else f"|{'|'.join(cells)}|" for cells in lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
