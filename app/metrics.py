"""What the worker counts, for Prometheus. Names and labels are part of the contract (docs/operations.md).

No label holds what a request can choose freely, and none a request id: a provider and a kind are checked names, models
and codes are bounded here (`Few`), and workspaces are named only where `app/ops/gauges.py` says so. Money is a float
here as everything is in Prometheus; who needs it exact asks the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

from app.clickhouse.ledger import ClickHouseLedger
from app.clickhouse.shape import Shape
from app.ops.months import Months
from app.settings import Settings
from schemas.base import Month
from schemas.response import Response
from schemas.usage import Outcome, UsageEvent
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError
from streams.accounts import Account
from streams.metrics import Once

R = TypeVar("R")
T = TypeVar("T")

#: Different values of a label that come from outside; whatever comes after them is called `OTHER`.
MOST_MODELS = 100
MOST_CODES = 60
OTHER = "other"
NONE = "none"

#: Seconds: from an answer out of memory to the default deadline.
DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
WRITES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)


class Few:
    """The first values of a label, and one name for all the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def name(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class PrometheusMetrics:
    """Implements streams.metrics.Metrics. `months` keeps how the budgets stand, for the gauges."""

    def __init__(self, registry: CollectorRegistry, months: Months) -> None:
        self._months = months
        self._once = Once()
        self._models = Few(MOST_MODELS)
        self._codes = Few(MOST_CODES)
        # A second series for each one, of which nobody here makes use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "ai_requests",
            "Terminal responses; provider: who answered.",
            ("kind", "provider", "status", "cached"),
            registry=registry,
        )
        self._durations = Histogram(
            "ai_request_duration_seconds",
            "From admission to the terminal response.",
            ("kind", "provider", "status"),
            buckets=DURATIONS,
            registry=registry,
        )
        self._errors = Counter(
            "ai_errors",
            "Failed attempts (stage: attempt) and requests without success (stage: request), by what went wrong.",
            ("stage", "provider", "code"),
            registry=registry,
        )
        self._attempts = Counter(
            "ai_attempts", "Attempts at providers by how they ended.", ("provider", "outcome"), registry=registry
        )
        self._cost = Counter(
            "ai_cost_usd", "Cost of attempts in US dollars, as first settled.", ("provider", "model"), registry=registry
        )
        self._tokens = Counter("ai_tokens", "Tokens of attempts.", ("provider", "model", "type"), registry=registry)
        self._saved = Counter("ai_saved_usd", "What shared and kept answers would have cost.", registry=registry)
        self._letters = Counter(
            "ai_dead_letters", "Records sent to the dead letters, by reason.", ("code",), registry=registry
        )
        self._gone = Counter(
            "ai_records_gone",
            "Offsets that were deleted before a reader had read them: records at most.",
            ("topic",),
            registry=registry,
        )

    def answered(self, response: Response) -> None:
        if not self._once.is_new("response", response.workspace_id, response.request_id):
            return
        provider, status = response.provider or NONE, response.status.value
        self._requests.labels(response.kind, provider, status, "true" if response.cached else "false").inc()
        self._durations.labels(response.kind, provider, status).observe(response.latency)
        if response.error is not None:
            self._errors.labels("request", provider, self._codes.name(response.error.code)).inc()
        if response.saved:
            self._saved.inc(float(response.saved))

    def attempted(self, usage: UsageEvent) -> None:
        """The first word on an attempt counts: a later one, on what was in doubt, would count its cost twice."""
        if not self._once.is_new("attempt", usage.workspace_id, usage.request_id, usage.attempt):
            return
        provider, model, tokens = usage.provider, self._models.name(usage.model), usage.tokens
        self._attempts.labels(provider, usage.outcome.value).inc()
        self._cost.labels(provider, model).inc(float(usage.cost))
        if tokens.total_tokens:
            self._tokens.labels(provider, model, "prompt").inc(tokens.prompt_tokens)
            self._tokens.labels(provider, model, "completion").inc(tokens.completion_tokens)
        if usage.outcome is not Outcome.SUCCEEDED:
            self._errors.labels("attempt", provider, self._codes.name(usage.error_code or usage.outcome.value)).inc()

    def stands(self, workspace_id: str, month: Month, account: Account, partition: int) -> None:
        self._months.hear(workspace_id, month, account, partition)

    def buried(self, code: str) -> None:
        self._letters.labels(self._codes.name(code)).inc()

    def gone(self, topic: str, count: int) -> None:
        self._gone.labels(topic).inc(count)


def count_dropped_spans(registry: CollectorRegistry) -> Callable[[str, int], None]:
    """Counts the spans that no collector will see. For any thread."""
    dropped = Counter("ai_trace_spans_dropped", "Spans that were not sent, by reason.", ("reason",), registry=registry)
    return lambda reason, count: dropped.labels(reason).inc(count)


class MeteredLedger(ClickHouseLedger):
    """The ledger, with its batches counted and timed, and whatever it fails at counted."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        super().__init__(settings)
        self._rows = Counter("ai_sink_rows", "Rows written to the ledger.", ("table",), registry=registry)
        self._seconds = Histogram(
            "ai_sink_write_seconds", "Writing one batch to the ledger.", buckets=WRITES, registry=registry
        )
        self._failed = Counter(
            "ai_sink_errors", "Tries to write a batch, or to sum it up, that failed.", ("reason",), registry=registry
        )

    async def insert(self, shape: Shape[R], batch: Sequence[R]) -> None:
        begun = perf_counter()
        with self._counted():
            await super().insert(shape, batch)
        self._rows.labels(shape.table).inc(len(batch))
        self._seconds.observe(perf_counter() - begun)

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        # A batch that is written and cannot be summed up is tried again as well, for as long as the server is away.
        with self._counted():
            return await super().ask(question)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except LedgerRejectedError:
            self._failed.labels("rejected").inc()
            raise
        except LedgerUnavailableError:
            self._failed.labels("unavailable").inc()
            raise
