"""Judges the books of a period: what is missing, doubled, in doubt, or does not add up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.audit.books import Attempt, Books, HeldSince, Life
from app.audit.facts import Answered, BudgetSaid, LedgerRow, MonthSum, OutcomeRow, Told, Used, dollars
from app.audit.findings import Figures, Findings, Kind
from schemas.dead_letter import Gap

WorkspaceMonth = tuple[str, str]


@dataclass(frozen=True)
class Scope:
    """What is judged. Moments are in milliseconds since 1970.

    `start` to `end` is the period, `read_from` where reading began, `now` when the audit did. What is younger than
    `patience` may still be on its way from one topic to the next.
    """

    start: int
    end: int
    now: int
    read_from: int
    patience: int
    responses_since: HeldSince = lambda _: 0
    usage_since: HeldSince = lambda _: 0

    def has(self, moment: int) -> bool:
        return self.start <= moment < self.end


@dataclass
class Verdict:
    """What was found, over all rounds."""

    findings: Findings = field(default_factory=Findings)
    figures: Figures = field(default_factory=Figures)
    #: Sums by workspace and month: of the ledger's rows, and of the usage that they should be made of.
    in_ledger: Counter[WorkspaceMonth] = field(default_factory=Counter)
    in_usage: Counter[WorkspaceMonth] = field(default_factory=Counter)
    #: Workspaces in which something is still under way, with the number of their open requests.
    moving: Counter[str] = field(default_factory=Counter)
    open_requests: Counter[str] = field(default_factory=Counter)


class Judge:
    """Goes through books, one after the other; `verdict` is the whole."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.verdict = Verdict()
        self._find = self.verdict.findings.add
        self._note = self.verdict.figures.note

    def judge(self, books: Books) -> None:
        """Take over what these books say. Each request may be in one of them only."""
        self.verdict.figures.counts.update(books.figures.counts)
        for key, life in books.lives.items():
            workspace = key.partition("/")[0]
            self._request(key, workspace, life)
            self._responses(key, workspace, life)
            self._outcomes(key, workspace, life)
            for attempt in life.attempts:
                self._attempt(f"{key}/{attempt.number}", workspace, attempt)

    def months(self) -> None:
        """Compare the sums, when all books are judged."""
        ledger, usage = self.verdict.in_ledger, self.verdict.in_usage
        for place in sorted(ledger.keys() | usage.keys()):
            if ledger[place] != usage[place]:
                told = f"ledger {_usd(ledger[place])}, usage {_usd(usage[place])}"
                self._find(Kind.MONTH_DIFFERS, "/".join(place), told, ledger[place] - usage[place])

    def gone(self, gaps: Iterable[Gap]) -> None:
        """What was deleted before it was read, of whichever workspace: nobody knows any more."""
        for gap in gaps:
            self._note("records_gone", gap.count)
            self._find(Kind.RECORDS_GONE, gap.place, gap.story)

    # Requests and responses ----------------------------------------------------------------------------------------

    def _request(self, key: str, workspace: str, life: Life) -> None:
        if not life.asked:
            return None
        self._note("requests")
        self._note("repeats_dropped", max(life.at_home - max(life.refused, 1), 0))
        if life.answers or life.answered_before:
            return None
        if life.asked < self.scope.responses_since(workspace):
            return self._note("requests_not_compared")
        if life.waits or life.due + self.scope.patience > self.scope.now:
            self.verdict.open_requests[workspace] += 1
            self.verdict.moving[workspace] += 1
            return self._note("requests_open")
        return self._find(Kind.REQUEST_WITHOUT_RESPONSE, key, f"asked {_ago(self.scope.now - life.asked)} ago")

    def _responses(self, key: str, workspace: str, life: Life) -> None:
        mine = [answer for answer in life.answers if self.scope.has(answer.at)]
        if not mine:
            return
        self._note("responses")
        self._note(f"responses_{mine[0].status}")
        if _contradict(life):
            told = ", ".join(f"{answer.status} {_usd(answer.cost)}" for answer in life.answers)
            self._find(Kind.CONTRADICTION, key, told)
        for answer in mine:
            if not answer.cached:
                self._money_of(key, workspace, life, answer)

    def _money_of(self, key: str, workspace: str, life: Life, answer: Answered) -> None:
        together = sum(told.cost for told in answer.attempts)
        if together != answer.cost:
            detail = f"response {_usd(answer.cost)}, attempts {_usd(together)}"
            self._find(Kind.RESPONSE_SUM, key, detail, answer.cost - together)
        held = max(self.scope.usage_since(workspace), self.scope.read_from)
        for told in answer.attempts:
            attempt = life.attempt(told.attempt)
            if attempt is not None and attempt.used:
                self._compare_told(f"{key}/{told.attempt}", told, attempt)
            elif answer.asked >= held and answer.at + self.scope.patience <= self.scope.now:
                self._find(Kind.ATTEMPT_WITHOUT_USAGE, f"{key}/{told.attempt}", _usd(told.cost), told.cost)

    def _compare_told(self, name: str, told: Told, attempt: Attempt) -> None:
        """With any of its records: what was in doubt when the request was answered may be known by now."""
        seen = [seen for seen in attempt.used if not seen.corrected]
        if not seen or any(record.cost == told.cost for record in seen):
            return None
        if told.in_doubt and any(record.known for record in seen):
            return self._note("told_in_doubt")
        costs = sorted(record.cost for record in seen)
        detail = f"response {_usd(told.cost)}, usage {', '.join(map(_usd, costs))}"
        return self._find(Kind.RESPONSE_USAGE, name, detail, told.cost - costs[-1])

    def _outcomes(self, key: str, workspace: str, life: Life) -> None:
        rows = [row for row in life.outcomes if self.scope.has(row.at)]
        self._note("outcomes", min(len(rows), 1))
        mine = [answer for answer in life.answers if self.scope.has(answer.at)]
        if len(rows) > max(len(life.answers), life.refused, 1):
            self._find(Kind.OUTCOME_DOUBLED, key, f"{len(rows)} rows")
        if rows and not life.answers:
            if min(row.at for row in rows) < self.scope.responses_since(workspace):
                self._note("outcomes_not_compared")
            elif not any(row.fresh for row in rows):
                self._find(Kind.OUTCOME_WITHOUT_RESPONSE, key, rows[0].status, rows[0].cost)
        elif mine and not life.outcomes:
            if any(answer.waits for answer in mine):
                self.verdict.moving[workspace] += 1
                return self._note("responses_waiting")
            self._find(Kind.RESPONSE_WITHOUT_OUTCOME, key, mine[0].status, mine[0].cost)
        elif mine and rows and not any(_same(answer, row) for answer in life.answers for row in rows):
            told = f"response {mine[0].status} {_usd(mine[0].cost)}, row {rows[0].status} {_usd(rows[0].cost)}"
            self._find(Kind.OUTCOME_DIFFERS, key, told, rows[0].cost - mine[0].cost)
        return None

    # Attempts ------------------------------------------------------------------------------------------------------

    def _attempt(self, name: str, workspace: str, attempt: Attempt) -> None:
        if not self.scope.has(attempt.started):
            return
        if attempt.used:
            self._note("usage")
        if attempt.row is not None:
            self._row(attempt.row)
        self._repeats(name, attempt)
        if attempt.rows > 1 and attempt.row is not None:
            self._find(Kind.ROW_DOUBLED, name, f"{attempt.rows} rows", attempt.row.cost)
        self._compare_attempt(name, workspace, attempt)

    def _row(self, row: LedgerRow) -> None:
        self._note("rows", cost=row.cost)
        if row.in_doubt:
            self._note("in_doubt", cost=row.cost)
        if row.corrected:
            self._note("corrected", cost=row.cost - row.original)

    def _repeats(self, name: str, attempt: Attempt) -> None:
        told = [seen for seen in attempt.used if not seen.corrected]
        for kind in {(seen.known, seen.supposed) for seen in told}:
            alike = [seen for seen in told if (seen.known, seen.supposed) == kind]
            if len(alike) > 1:
                costs = sorted(seen.cost for seen in alike)
                self._find(Kind.USAGE_DISAGREES, name, ", ".join(map(_usd, costs)), costs[-1] - costs[0])
        if len({seen.known for seen in told}) > 1:
            self._note("doubts_resolved")

    def _compare_attempt(self, name: str, workspace: str, attempt: Attempt) -> None:
        row, arrived = attempt.row, [seen for seen in attempt.used if not seen.waits]
        best = max(arrived, key=_version, default=None)
        if row is not None and row.unpriced:
            self._find(Kind.UNPRICED, name, "in doubt" if row.in_doubt else "")
        if row is None:
            if best is None:
                self.verdict.moving[workspace] += 1
                return self._note("usage_waiting")
            self._find(Kind.USAGE_WITHOUT_ROW, name, _usd(best.cost), best.cost)
            return self._sum(workspace, attempt, 0, best.cost)
        if any(seen.version == row.version and seen.cost == row.cost for seen in attempt.used) and (
            best is None or best.version <= row.version
        ):
            return self._sum(workspace, attempt, row.cost * attempt.rows, row.cost)
        if attempt.started < self.scope.usage_since(workspace):
            return self._note("rows_not_compared", cost=row.cost)
        if row.fresh and (best is None or best.version < row.version):
            # Its usage came after the topic was read.
            self.verdict.moving[workspace] += 1
            return self._note("rows_too_new")
        return self._wrong_row(name, workspace, attempt, row, best)

    def _wrong_row(self, name: str, workspace: str, attempt: Attempt, row: LedgerRow, best: Used | None) -> None:
        if not attempt.used:
            self._find(Kind.ROW_WITHOUT_USAGE, name, _usd(row.cost), row.cost)
            return self._sum(workspace, attempt, row.cost, 0)
        best = best or max(attempt.used, key=_version)
        told = f"row {_usd(row.cost)}, usage {_usd(best.cost)}"
        self._find(Kind.ROW_DIFFERS, name, told, row.cost - best.cost)
        return self._sum(workspace, attempt, row.cost, best.cost)

    def _sum(self, workspace: str, attempt: Attempt, ledger: int, usage: int) -> None:
        place = (workspace, attempt.month)
        self.verdict.in_ledger[place] += ledger
        self.verdict.in_usage[place] += usage

    # Budgets -------------------------------------------------------------------------------------------------------

    def budgets(self, said: Iterable[BudgetSaid], sums: Mapping[WorkspaceMonth, MonthSum]) -> None:
        """Compare what budgets have counted with whole months of the ledger, when all books are judged."""
        seen: set[WorkspaceMonth] = set()
        for state in said:
            place = (state.workspace, state.month)
            seen.add(place)
            self._budget(state, sums.get(place) or MonthSum(*place, 0, 0, 0))
        self._note("months_without_state", len(sums.keys() - seen) if seen else 0)

    def _budget(self, state: BudgetSaid, month: MonthSum) -> None:
        recent = self.scope.now - self.scope.patience
        if self.verdict.moving[state.workspace] or max(state.at, month.last_change) > recent:
            return self._note("budgets_moving")
        self._note("budgets")
        name = f"{state.workspace}/{state.month}"
        counted = month.cost - month.corrections
        if state.open_requests or state.reserved:
            told = f"{_usd(state.reserved)} for {state.open_requests} requests"
            self._find(Kind.RESERVATION_LEFT, name, told, state.reserved)
        if state.spent != counted:
            corrections = f" without corrections of {_usd(month.corrections)}" if month.corrections else ""
            told = f"budget {_usd(state.spent)}, ledger {_usd(counted)}{corrections}"
            self._find(Kind.BUDGET_DIFFERS, name, told, state.spent - counted)
        return None


def _version(seen: Used) -> int:
    return seen.version


def _contradict(life: Life) -> bool:
    """Records that are no requests are each refused on their own, also under one request's name."""
    refusals = sum(answer.status == "rejected" for answer in life.answers)
    return len(life.answers) - refusals > 1 or (len(life.answers) > 1 and refusals > life.refused)


def _same(answer: Answered, row: OutcomeRow) -> bool:
    return (answer.status, answer.cost) == (row.status, row.cost)


def _usd(amount: int) -> str:
    return f"{'-' if amount < 0 else ''}${abs(dollars(amount)):f}"


def _ago(span: int) -> str:
    """Milliseconds for people."""
    seconds = span // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
