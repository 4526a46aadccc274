"""What stands rather than happens, read at the moment of a scrape: nothing is kept up to date for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.ops.months import OTHERS, Overview
from app.providers.availability import Standing
from schemas.control import LaneState, Mode

CIRCUITS = ("closed", "half_open", "open")
LIMITS = ("rpm", "rph", "tpm", "tph")
LANE = ("lane", "provider")


@dataclass(frozen=True)
class Sources:
    """Where the figures come from. Each is asked at every scrape, and answers at once."""

    lanes: Callable[[], Iterable[LaneState]]
    availability: Callable[[], Mapping[str, Standing]]
    months: Callable[[], Overview]
    backlog: Callable[[], Mapping[tuple[str, str], int]]
    partitions: Callable[[], int]
    apart: Callable[[], float | None] = lambda: None
    still: Callable[[], Mapping[str, float]] = dict
    paused: Callable[[], Mapping[str, bool]] = dict
    ages: Callable[[], Mapping[str, float]] = dict


class Gauges(Collector):
    """All gauges of a worker. Their sum over all workers is the deployment's, for lanes, backlog and money alike."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Asked at registration, before there is anything to read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        sources = self._sources
        partitions = sources.partitions()
        yield _one("ai_worker_ready", "1: has its partitions and their tables.", 1 if partitions else 0)
        yield _one("ai_worker_partitions", "Partitions that the worker has, those of its tables included.", partitions)
        apart = sources.apart()
        yield _labelled(
            "ai_clock_apart_seconds",
            "By how much the machine's clock is ahead of the broker's; absent while that is not known.",
            (),
            () if apart is None else (((), apart),),
        )
        yield _labelled(
            "ai_standstill_seconds",
            "For how long a part of the worker has done nothing although work waits for it; absent where none has.",
            ("part",),
            (((name,), seconds) for name, seconds in sources.still().items()),
        )
        yield _labelled(
            "ai_stage_paused",
            "1: the stage acknowledges nothing for now, because of a fault of the worker's own.",
            ("stage",),
            (((name,), is_on) for name, is_on in sources.paused().items()),
        )
        yield from availability(sources.availability())
        yield from lanes(list(sources.lanes()))
        yield _labelled(
            "ai_backlog_records",
            "Records that are not acknowledged yet, in the partitions of the worker's stages and of its sinks.",
            ("reader", "topic"),
            sources.backlog().items(),
        )
        yield _labelled(
            "ai_backlog_age_ratio",
            "The age of the topic's oldest record that is not acknowledged yet, as a share of the topic's retention.",
            ("topic",),
            (((topic,), share) for topic, share in sources.ages().items()),
        )
        yield from money(sources.months())


def availability(standings: Mapping[str, Standing]) -> Iterator[Metric]:
    rows = (((name,), standing.available) for name, standing in standings.items())
    yield _labelled("ai_provider_available", "1: the provider was there at the last look.", ("provider",), rows)


def lanes(states: list[LaneState]) -> Iterator[Metric]:
    names = [(state.lane, state.provider) for state in states]

    def each(values: Iterable[Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
        return zip(names, values, strict=True)

    yield _labelled("ai_lane_waiting", "Requests that wait in the lane.", LANE, each(s.waiting for s in states))
    yield _labelled("ai_lane_in_flight", "Calls on their way.", LANE, each(s.in_flight for s in states))
    waits = (((s.lane, s.provider), s.wait) for s in states if s.wait is not None)
    yield _labelled("ai_lane_wait_seconds", "About how long a request would wait for its call.", LANE, waits)
    paused = (s.mode is not Mode.OPEN or s.paused_until is not None for s in states)
    yield _labelled("ai_lane_paused", "1: by the operator, or the provider asked for a pause.", LANE, each(paused))
    yield _labelled(
        "ai_breaker_state",
        "1 at the state in which the lane's circuit breaker is.",
        (*LANE, "state"),
        (((s.lane, s.provider, name), s.circuit == name) for s in states for name in CIRCUITS),
    )
    spans = [(s, name, getattr(s, name)) for s in states for name in LIMITS]
    used = (((s.lane, s.provider, name), span.used) for s, name, span in spans)
    yield _labelled("ai_lane_used", "What the window of a limit holds.", (*LANE, "limit"), used)
    limits = (((s.lane, s.provider, name), span.limit) for s, name, span in spans if span.limit is not None)
    yield _labelled("ai_lane_limit", "The limit in force; absent where there is none.", (*LANE, "limit"), limits)


def money(overview: Overview) -> Iterator[Metric]:
    spent = GaugeMetricFamily("ai_monthly_cost_usd", "Spent in the workspace's month.", labels=("workspace",))
    reserved = GaugeMetricFamily("ai_reserved_usd", "Reserved for requests on their way.", labels=("workspace",))
    budget = GaugeMetricFamily("ai_monthly_budget_usd", "The workspace's budget of a month.", labels=("workspace",))
    for one in overview.named:
        spent.add_metric((one.workspace_id,), float(one.spent))
        reserved.add_metric((one.workspace_id,), float(one.reserved))
        budget.add_metric((one.workspace_id,), float(one.budget))
    spent.add_metric((OTHERS,), float(overview.others_spent))
    reserved.add_metric((OTHERS,), float(overview.others_reserved))
    yield from (spent, reserved, budget)
    yield _one("ai_workspaces", "Workspaces with a current month.", overview.workspaces)
    yield _one("ai_workspaces_over_budget", "Workspaces whose month has cost its budget or more.", overview.over)


def _one(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _labelled(
    name: str, documentation: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Any]]
) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, amount in rows:
        family.add_metric(values, float(amount))
    return family
