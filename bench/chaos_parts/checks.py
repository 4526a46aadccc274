"""What must hold after a round, each as a function of the facts. What the words of a round's line mean:

lost               a request that is in the topic has no terminal response
contradict         two responses of a request differ, or have two ids
content            an answer is not whole, or is not the answer to its prompt
expired            a request without a deadline of its own has expired
twice              one attempt was called more than once
norow, rowdouble   a call has no row in the ledger; an attempt has two
cost               a row's cost is not the provider's bill, or a call that was answered counts as failed
doubt_unexcused    a call that was answered is in doubt, and nothing had happened that explains it
nocall_paid        a row costs money, is not in doubt, and there was no call
repeat_unexcused   a request that was answered was called and paid again, and nothing had happened
paid_again_though_known   the same, and the ledger knows the first answer
differs, reserved  an account is not the ledger; something stays reserved
over               a budget that refuses was passed, by the provider's bill
alerts_missing     a threshold was crossed and not told
rpm_over, tpm_over openai's requests in any 60 s, or the local model's tokens, were above the limit
disorder, mismatch, noreply   pieces of a stream out of order; not the answer; no final reply
cancel_calls, cancel_succ     a call, or a success, after the request was cancelled
dl_calls, dl_succ, late       the same after its deadline; an answer more than 65 s after it
hostile, lag, internal        a hostile record without a word; records left unread; a fault of ours blamed on a record
cl_back, cl_differs, cl_open  a changelog's account went back, differs from the ledger; a request was opened again
audit              the exit code of `spillway audit`
tracebacks, never  in the workers' logs: tracebacks, exceptions that nobody has taken
unquiet            answers, acknowledgements or rows of the ledger were still missing when the time for them was over
finished_paid_again           finished requests were published once more, and providers were called
rebuild_not_ready, rebuild_differs, rebuild_calls
                   tables made anew out of the changelogs: not at all; accounts that are not the ledger; finished
                   requests that are called again
"""

from __future__ import annotations

import json
import re
import uuid
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from bench.chaos_parts.facts import EXAMPLES, Call, Facts, Found, split
from bench.chaos_parts.mix import Asked
from bench.chaos_parts.names import ALERTING, CHANGELOG, OWNER_ROW, REPLIES, TIGHT
from bench.chaos_parts.records import Record

#: A whole answer: its tag, its words, and how many they are.
WHOLE = re.compile(r"^A\[([^\]]*)\] (.*) END(\d+)$", re.DOTALL)
#: The namespace of the ids of requests that have none of their own.
UNNAMED = uuid.UUID("6f1d3c1a-52a7-4bd5-9f0e-5f9c1b5a7e11")
#: Seconds: after a cancellation, calls and successes that crossed it; after a deadline, the clock's grain, an answer on
#: its way, and an answer that is late.
CANCEL_CALLS, CANCEL_SUCCEEDS = 2.0, 3.0
DEADLINE_CALLS, DEADLINE_SUCCEEDS, LATE = 0.3, 0.5, 65.0
#: Seconds that a call's report may take.
REPORTED_WITHIN = 12.0
#: Seconds between an answer's end and its request's deadline within which a worker may have hung up before it had it.
AT_DEADLINE = 0.1
#: The same for its cancellation, which a worker hears within this time.
AT_CANCELLATION = 1.0
#: Seconds that a request has which names no deadline (AI_DEFAULT_DEADLINE in bench/chaos_parts/stack.py).
DEFAULT_DEADLINE = 150.0
#: Seconds of a quota's window, and those that a new limit takes to reach all lanes.
MINUTE, LIMIT_REACHES = 60.0, 6.0
THRESHOLDS = (50, 80, 90, 100)
NANOS = 10**9

NOTHING = "none"


def answers(facts: Facts) -> Found:
    """Each request that is in the topic has one answer, its own."""
    lost = [name for name in facts.present if name not in facts.responses]
    contradicting: list[object] = []
    for name, found in facts.responses.items():
        ids = {record.header("ce_id") for record, _ in found}
        said = {(body["status"], body.get("content"), _code(body), body["usage"]["cost"]) for _, body in found}
        if len(ids) > 1 or len(said) > 1:
            kind = facts.asked[name].kind if name in facts.asked else "?"
            contradicting.append((name, kind, [one[0] for one in said], [round(r.at, 1) for r, _ in found]))
    content: list[object] = []
    expired: list[object] = []
    for name, (record, body) in facts.answers.items():
        asked = facts.asked[name]
        if body["status"] == "succeeded" and not _is_whole(body.get("content"), asked.tag):
            content.append((name, asked.kind, (body.get("content") or "")[:60]))
        if body["status"] == "expired" and asked.deadline is None:
            after = round(record.at - facts.present[name][0].at, 1) if name in facts.present else None
            expired.append((name, asked.kind, after))
    bodies = [body for _, body in facts.answers.values()]
    return Found(
        {"lost": len(lost), "contradict": len(contradicting), "content": len(content), "expired": len(expired)},
        {
            "requests in the topic": len(facts.present),
            "asked and not in it": sum(name not in facts.present for name in facts.asked),
            "responses repeated": sum(len(found) - 1 for found in facts.responses.values()),
            "statuses": Counter(f"{body['status']}{' cached' if body.get('cached') else ''}" for body in bodies),
            "codes": Counter(str(_code(body)) for body in bodies),
            "lost": lost[:EXAMPLES],
            "contradict": contradicting[:EXAMPLES],
            "content": content[:EXAMPLES],
            "expired": expired[:EXAMPLES],
        },
    )


def _code(body: Mapping[str, Any]) -> str | None:
    error = body.get("error") or {}
    return error.get("code")


def _is_whole(content: str | None, tag: str) -> bool:
    match = WHOLE.match(content or "")
    return match is not None and match[1] == tag and len(match[2].split()) == int(match[3])


def calls(facts: Facts) -> Found:
    """Each attempt is called once and counted once, at what the provider has billed."""
    twice = {name: made for name, made in facts.attempts.items() if len(made) > 1}
    without = [name for name in facts.attempts if name not in facts.rows]
    double = [name for name, rows in facts.rows.items() if len(rows) > 1]
    costs: list[object] = []
    doubted: Counter[str] = Counter()
    unexcused: list[object] = []
    uncalled: Counter[str] = Counter()
    uncalled_paid: list[str] = []
    for name, (row, *_) in facts.rows.items():
        made = facts.attempts.get(name, [])
        answered = [call for call in made if call.answer]
        bills = {call.price for call in answered}
        if row.outcome == "succeeded" and row.cost not in bills:
            costs.append((name, str(row.cost), [str(bill) for bill in bills], [call.how for call in made]))
        if row.outcome == "failed" and answered:
            costs.append((name, "failed though answered", row.error, answered[0].plan))
        if row.outcome == "in_doubt" and answered:
            reason = _why_in_doubt(facts, answered[0])
            doubted[reason] += 1
            if reason == NOTHING:
                unexcused.append((name, row.error, answered[0].worker, answered[0].plan))
        if not made:
            uncalled[f"{row.outcome} {row.error}"] += 1
            if row.outcome != "in_doubt" and row.cost:
                uncalled_paid.append(name)
    rows = [rows[0] for rows in facts.rows.values()]
    return Found(
        {
            "twice": len(twice),
            "norow": len(without),
            "rowdouble": len(double),
            "cost": len(costs),
            "doubt_unexcused": doubted[NOTHING],
            "nocall_paid": len(uncalled_paid),
        },
        {
            "calls": len(facts.calls),
            "attempts": len(facts.attempts),
            "rows": len(facts.rows),
            "succeeded": sum(row.outcome == "succeeded" for row in rows),
            "in doubt": Counter(row.error or "-" for row in rows if row.outcome == "in_doubt"),
            "in doubt though answered": doubted,
            "rows without a call": uncalled,
            "bill": str(sum((call.price for call in facts.billed), Decimal(0))),
            "twice": [
                (name, [(c.worker, round(c.at, 2), c.how) for c in made])
                for name, made in list(twice.items())[:EXAMPLES]
            ],
            "norow": without[:EXAMPLES],
            "rowdouble": double[:EXAMPLES],
            "cost": costs[:EXAMPLES],
            "doubt_unexcused": unexcused[:EXAMPLES],
            "nocall_paid": uncalled_paid[:EXAMPLES],
        },
    )


def _why_in_doubt(facts: Facts, call: Call) -> str:
    ended = call.end.at if call.end else call.at
    name = call.attempt.rsplit("/", 1)[0]
    asked, present = facts.asked.get(name), facts.present.get(name)
    deadline = asked.deadline if asked and asked.deadline else present[0].at + DEFAULT_DEADLINE if present else 0.0
    if abs(deadline - ended) < AT_DEADLINE:
        return "the deadline"
    if asked and asked.cancelled_at and abs(asked.cancelled_at - ended) < AT_CANCELLATION:
        return "the cancellation"
    return facts.excuses.why(call.worker, call.at, ended + REPORTED_WITHIN) or NOTHING


def repeats(facts: Facts) -> Found:
    """A request whose call was answered is not called again."""
    of_request: dict[str, list[tuple[int, Call]]] = defaultdict(list)
    for attempt, made in facts.attempts.items():
        request, number = split(attempt)
        of_request[request] += [(number, call) for call in made]
    reasons: Counter[str] = Counter()
    unexcused: list[object] = []
    known: list[object] = []
    paid_again = Decimal(0)
    for request, numbered in of_request.items():
        answered = sorted((pair for pair in numbered if pair[1].answer), key=lambda pair: pair[1].at)
        if not answered:
            continue
        number, first = answered[0]
        assert first.end is not None
        for later, call in answered[1:]:
            reason = facts.excuses.why(first.worker, first.at, call.at) or NOTHING
            reasons[reason] += 1
            paid_again += call.price
            told = (
                request,
                number,
                later,
                first.worker,
                call.worker,
                round(first.end.at, 1),
                round(call.at, 1),
                reason,
            )
            if reason == NOTHING or reason.startswith("other"):
                unexcused.append(told)
            # A worker that stood still may report its call when its successor has begun the next: that is wanted.
            if facts.excuses.stood_still(first.worker, first.at, call.at):
                continue
            rows = facts.rows.get(f"{request}/{number}")
            if rows and rows[0].outcome == "succeeded":
                known.append(told)
    return Found(
        {"repeat_unexcused": reasons[NOTHING], "paid_again_though_known": len(known)},
        {
            "requests called": len(of_request),
            "paid again": reasons,
            "paid again, $": str(paid_again),
            "unexcused": unexcused[:EXAMPLES],
            "known": known[:EXAMPLES],
        },
    )


def accounts(facts: Facts) -> Found:
    """What was said of each account is the ledger, nothing stays reserved, and no budget was passed."""
    said = newest_states(facts.topic("ai.budget.state"))
    differs = [
        (account[0], said.get(account, {}).get("spent"), str(spent))
        for account, spent in facts.ledger.items()
        if Decimal(said.get(account, {}).get("spent", 0)) != spent
    ]
    reserved = [
        (account[0], state["reserved"], state["open_requests"])
        for account, state in said.items()
        if Decimal(state["reserved"]) != 0 or state["open_requests"]
    ]
    billed: dict[str, Decimal] = defaultdict(Decimal)
    for call in facts.billed:
        request, _ = split(call.attempt)
        if request in facts.asked:
            billed[facts.asked[request].workspace] += call.price
    over = [(name, str(billed[name]), amount) for name, amount in TIGHT.items() if billed[name] > Decimal(amount)]
    told = Counter((record.header("ce_id") or b"").decode() for record in facts.topic("ai.budget.alerts"))
    missing = {
        name: thresholds
        for name, amount in {**ALERTING, **TIGHT}.items()
        if (thresholds := _missing_alerts(facts, name, Decimal(amount), told))
    }
    return Found(
        {"differs": len(differs), "reserved": len(reserved), "over": len(over), "alerts_missing": len(missing)},
        {
            "accounts": len(facts.ledger),
            "ledger, $": str(sum(facts.ledger.values(), Decimal(0))),
            "tight": {name: (str(billed[name]), amount) for name, amount in TIGHT.items()},
            "alerts": len(told),
            "alerts repeated": sum(told.values()) - len(told),
            "differs": differs[:EXAMPLES],
            "reserved": reserved[:EXAMPLES],
            "over": over,
            "alerts_missing": missing,
        },
    )


def newest_states(records: Iterable[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest word on each account (workspace and month)."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        if not record.value:
            continue
        state = record.json()
        account = state["workspace_id"], state["month"]
        if account not in newest or state["at"] >= newest[account]["at"]:
            newest[account] = state
    return newest


def _missing_alerts(facts: Facts, workspace: str, amount: Decimal, told: Iterable[str]) -> list[int]:
    spent = sum((cost for account, cost in facts.ledger.items() if account[0] == workspace), Decimal(0))
    crossed = {threshold for threshold in THRESHOLDS if spent / amount * 100 >= threshold}
    parts = (name.split("/") for name in told if name.startswith(f"{workspace}/"))
    return sorted(crossed - {int(words[2]) for words in parts if len(words) > 2 and words[2].isdigit()})


def quota(facts: Facts) -> Found:
    """No 60 s hold more of openai's requests, or of the local model's tokens, than the limit that was in force."""
    limits = [(0.0, facts.limits.rpm)]
    for event in facts.events:
        if event["event"] == "limits" and event["code"] == 0:
            limits.append((event["t"], event["rpm"]))
        elif event["event"] == "restored":
            limits.append((event["t"], facts.limits.rpm))
    called = sorted(call.at for call in facts.calls if call.provider == "openai")
    over: list[tuple[float, int, int]] = []
    worst, first = 0.0, 0
    for last, at in enumerate(called):
        while called[first] <= at - MINUTE:
            first += 1
        count, allowed = last - first + 1, _allowed(limits, at - MINUTE, at)
        worst = max(worst, count / allowed)
        if count > allowed:
            over.append((round(at, 2), count, allowed))
    tokens_over, most_tokens = _tokens(facts)
    return Found(
        {"rpm_over": max((count - allowed for _, count, allowed in over), default=0), "tpm_over": tokens_over},
        {
            "openai": len(called),
            "worst minute of its limit": round(worst, 3),
            "moments above it": len(over),
            "local": sum(call.provider == "local" for call in facts.calls),
            "most tokens in a minute": most_tokens,
            "of": facts.limits.tpm,
            "rpm_over": over[:2] + over[-2:],
        },
    )


def _allowed(limits: Sequence[tuple[float, int]], begin: float, end: float) -> int:
    """The highest limit in force at any time between; one that has ended stays so until all lanes know the next."""
    ends = [*(at for at, _ in limits[1:]), float("inf")]
    return max(
        rpm for (at, rpm), until in zip(limits, ends, strict=True) if at <= end and until >= begin - LIMIT_REACHES
    )


def _tokens(facts: Facts) -> tuple[int, int]:
    """How many calls were above the limit of tokens, and the most that any 60 s held."""
    limit = facts.limits.tpm
    # One that is larger than a lane's limit goes alone, by design.
    used = sorted((c.at, c.tokens) for c in facts.calls if c.provider == "local" and c.tokens < limit // 4)
    first, total, most, over = 0, 0, 0, 0
    for at, tokens in used:
        total += tokens
        while used[first][0] <= at - MINUTE:
            total -= used[first][1]
            first += 1
        most = max(most, total)
        over += total > limit
    return over, most


Pieces = dict[str, dict[int, list[tuple[int, str]]]]


def streams(facts: Facts) -> Found:
    """The pieces of a stream, in their order, are the answer; the attempt that answers is the last that has any."""
    pieces, finals, repeated = _pieces(facts.topic(REPLIES))
    disorder = [
        (
            name,
            attempt,
            [index for index, _ in found][:30],
            [c.worker for c in facts.attempts.get(f"{name}/{attempt}", [])],
        )
        for name, of_attempt in pieces.items()
        for attempt, found in of_attempt.items()
        if [index for index, _ in found] != list(range(len(found)))
    ]
    mismatch: list[object] = []
    silent: list[str] = []
    compared = 0
    for name, (_, body) in facts.answers.items():
        asked = facts.asked[name]
        if not asked.stream:
            continue
        if name not in finals:
            silent.append(name)
        if body["status"] != "succeeded":
            continue
        of_attempt = pieces.get(name, {})
        if body.get("cached"):
            mismatch += _of_kept_answer(asked, body["content"], of_attempt)
        else:
            compared += body["attempts"][-1]["attempt"] in of_attempt
            mismatch += _of_called_answer(asked, body, of_attempt)
    return Found(
        {"disorder": len(disorder), "mismatch": len(mismatch), "noreply": len(silent)},
        {
            "streams": sum(asked.stream for asked in facts.asked.values()),
            "with pieces": len(pieces),
            "compared": compared,
            "pieces repeated": repeated,
            "disorder": disorder[:EXAMPLES],
            "mismatch": mismatch[:EXAMPLES],
            "noreply": silent[:EXAMPLES],
        },
    )


def _pieces(records: Iterable[Record]) -> tuple[Pieces, set[str], int]:
    """The pieces of each attempt of each request as they came, who has a final reply, and how many pieces came again:
    a receiver drops the same piece, its id is the same.
    """
    pieces: Pieces = defaultdict(lambda: defaultdict(list))
    finals: set[str] = set()
    repeated = 0
    for record in sorted(records, key=lambda record: record.place):
        body = record.json()
        if record.header("ce_type") != b"ai.response.chunk":
            finals.add(body["request_id"])
            continue
        piece = body["index"], body.get("content", "")
        known = pieces[body["request_id"]][body["attempt"]]
        if piece in known:
            repeated += 1
        else:
            known.append(piece)
    return pieces, finals, repeated


def _of_kept_answer(asked: Asked, content: str, of_attempt: Mapping[int, list[tuple[int, str]]]) -> list[object]:
    first = of_attempt.get(1, [])
    if not first or "".join(text for _, text in first) == content:
        return []
    if "".join(text for _, text in of_attempt[max(of_attempt)]) == content:
        return []
    return [(asked.id, "cached", asked.kind, sorted(of_attempt))]


def _of_called_answer(
    asked: Asked, body: Mapping[str, Any], of_attempt: Mapping[int, list[tuple[int, str]]]
) -> list[object]:
    number = body["attempts"][-1]["attempt"]
    if number not in of_attempt:
        return [(asked.id, "no pieces of the attempt that answers", number, sorted(of_attempt), asked.kind)]
    wrong: list[object] = []
    first_of_index: dict[int, str] = {}
    for index, text in of_attempt[number]:
        first_of_index.setdefault(index, text)
    if "".join(first_of_index[index] for index in sorted(first_of_index)) != body["content"]:
        wrong.append((asked.id, number, sorted(of_attempt), asked.kind))
    if max(of_attempt) > number:
        wrong.append((asked.id, "pieces of a later attempt", number, sorted(of_attempt), asked.kind))
    return wrong


def _could_not_hear(facts: Facts, made: Sequence[Call], answered: float) -> bool:
    """Whether the worker that had the answer stood still between the answer's end and its settlement."""
    ended = [call.end.at for call in made if call.end and call.answer]
    return bool(ended) and facts.excuses.stood_still(made[-1].worker, max(ended), answered)


def ends(facts: Facts) -> Found:
    """After a cancellation or a deadline nobody is called, nothing succeeds, and the answer is not late."""
    cancel_calls: list[object] = []
    cancel_succeeds: list[object] = []
    deadline_calls: list[object] = []
    deadline_succeeds: list[object] = []
    late: list[object] = []
    cancelled: Counter[str] = Counter()
    made: dict[str, list[Call]] = defaultdict(list)
    for attempt, of_attempt in facts.attempts.items():
        made[attempt.rsplit("/", 1)[0]] += of_attempt
    for name, (record, body) in facts.answers.items():
        asked, succeeded = facts.asked[name], body["status"] == "succeeded"
        answered = datetime.fromisoformat(body["answered_at"]).timestamp()
        if asked.cancelled_at:
            moment = asked.cancelled_at
            cancelled[f"{body['status']} {_code(body)}"] += 1
            if after := [call for call in made[name] if call.at > moment + CANCEL_CALLS]:
                told = [(round(c.at - moment, 1), c.worker, facts.excuses.why(c.worker, moment, c.at)) for c in after]
                cancel_calls.append((name, told))
            if succeeded and answered > moment + CANCEL_SUCCEEDS and not _could_not_hear(facts, made[name], answered):
                cancel_succeeds.append((name, round(answered - moment, 1)))
        if asked.deadline:
            moment = asked.deadline
            if after := [call for call in made[name] if call.at > moment + DEADLINE_CALLS]:
                deadline_calls.append((name, [(round(call.at - moment, 2), call.worker) for call in after]))
            if succeeded and answered > moment + DEADLINE_SUCCEEDS:
                deadline_succeeds.append((name, round(answered - moment, 1)))
            present = facts.present.get(name)
            if record.at > moment + LATE and present and present[0].at < moment:
                late.append((name, round(record.at - moment, 1)))
    wrong = {
        "cancel_calls": cancel_calls,
        "cancel_succ": cancel_succeeds,
        "dl_calls": deadline_calls,
        "dl_succ": deadline_succeeds,
        "late": late,
    }
    return Found(
        {word: len(found) for word, found in wrong.items()},
        {"cancelled": cancelled, **{word: found[:EXAMPLES] for word, found in wrong.items()}},
    )


def letters(facts: Facts) -> Found:
    """Each hostile record has an answer or a dead letter, nothing is left unread, and no letter blames a record for a
    fault of ours.
    """
    dead = set()
    for record in facts.topic("ai.dead-letters"):
        topic = (record.header("kafka_dlt-original-topic") or b"").decode()
        partition, offset = (_number(record, f"kafka_dlt-original-{part}") for part in ("partition", "offset"))
        dead.add((topic, partition, offset))
    stamps = {record.place: record.timestamp for record in facts.topic("ai.requests")}
    unanswered = []
    for sent in facts.hostile:
        # Admission may have sent it on to its own partition: its id stays the one of the place where it came.
        place = f"ai.requests/{sent.partition}/{sent.offset}/{stamps.get((sent.partition, sent.offset))}"
        answered = str(uuid.uuid5(UNNAMED, place)) in facts.responses
        if not answered and ("ai.requests", sent.partition, sent.offset) not in dead:
            unanswered.append((sent.label, sent.partition, sent.offset))
    reasons = [(record.header("kafka_dlt-exception-fqcn") or b"").decode() for record in facts.topic("ai.dead-letters")]
    internal = [
        (record.header("kafka_dlt-exception-message") or b"").decode(errors="replace")[:150]
        for record, reason in zip(facts.topic("ai.dead-letters"), reasons, strict=True)
        if "internal_error" in reason
    ]
    return Found(
        {"hostile": len(unanswered), "lag": len(facts.behind), "internal": len(internal)},
        {
            "hostile": len(facts.hostile),
            "dead letters": Counter(reasons),
            "unanswered": unanswered[:EXAMPLES],
            "lag": facts.behind,
            "internal": internal[:EXAMPLES],
        },
    )


def _number(record: Record, header: str) -> int:
    return int.from_bytes(record.header(header) or b"", "big")


def changelog(facts: Facts) -> Found:
    """The rows of accounts never go back, and the last is the ledger; a request that was closed stays closed."""
    newest: dict[str, dict[str, Any]] = {}
    back: list[object] = []
    closed: dict[str, object] = {}
    reopened: list[str] = []
    for record in sorted(facts.topic(CHANGELOG), key=lambda record: record.place):
        key = (record.key or b"").decode()
        if key == OWNER_ROW:
            continue
        if key.startswith("@account/"):
            if not record.value:
                newest.pop(key, None)
                continue
            row = record.json()
            before = newest.get(key)
            if before and (row["o"][0] < before["o"][0] or row["o"][1] < before["o"][1]):
                back.append((key, record.place, before["o"], row["o"], before["$"], row["$"], record.at))
            newest[key] = row
        elif not key.startswith("@") and record.value:
            row = record.json()
            if row.get("v") != 1:
                continue
            if "c" in row:
                closed[key] = row["c"]
            elif key in closed:
                del closed[key]
                reopened.append(key)
    differs = []
    for key, row in newest.items():
        workspace, month = key.removeprefix("@account/").rsplit("/", 1)
        spent, in_ledger = Decimal(row["$"][0]) / NANOS, facts.ledger.get((workspace, month), Decimal(0))
        if spent != in_ledger or row["$"][1] or row["$"][2]:
            differs.append((workspace, str(spent), str(in_ledger), row["$"]))
    stay_open = [key for key in reopened if key not in closed]
    return Found(
        {"cl_back": len(back), "cl_differs": len(differs), "cl_open": len(stay_open)},
        {
            "opened again": len(reopened),
            "cl_back": back[:EXAMPLES],
            "cl_differs": differs[:EXAMPLES],
            "cl_open": stay_open[:EXAMPLES],
        },
    )


#: The checks that need the facts alone, by their names in the results.
CHECKS: Mapping[str, Callable[[Facts], Found]] = {
    "answers": answers,
    "calls": calls,
    "repeats": repeats,
    "accounts": accounts,
    "quota": quota,
    "streams": streams,
    "ends": ends,
    "letters": letters,
    "changelog": changelog,
}


# Logs -----------------------------------------------------------------------------------------------------------------


def logs(texts: Mapping[str, str]) -> Found:
    """The workers' logs, by their names."""
    return Found(
        {
            "tracebacks": sum(text.count("Traceback") for text in texts.values()),
            "never": sum(text.count("never retrieved") for text in texts.values()),
        },
        {name: _log(text) for name, text in texts.items()},
    )


def _log(text: str) -> dict[str, Any]:
    told: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for line in text.splitlines():
        if not line.startswith("{"):
            if line.strip():
                other[re.sub(r"[\dxa-f]{3,}|\d+", "#", line[:60])] += 1
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        level = str(entry.get("level", "")).lower()
        if level in {"warning", "error", "critical"}:
            words = re.sub(r"\d+", "#", str(entry.get("event", ""))[:70])
            told[f"{level[:4]} {str(entry.get('logger', '')).rsplit('.', 1)[-1]}: {words}"] += 1
    return {
        "lines": text.count("\n"),
        "tracebacks": text.count("Traceback"),
        "told": dict(told.most_common(14)),
        "other": dict(other.most_common(6)),
    }


#: Seconds after a fault in which the silence that it makes has begun.
SILENCE_BEGINS = 12.0
SILENCING = ("kill", "freeze", "term", "broker_kill", "broker_freeze")


def silences(facts: Facts) -> list[dict[str, Any]]:
    """For each of the greater faults, the longest time in seconds that a partition of answers was silent after it."""
    answered: dict[int, list[float]] = defaultdict(list)
    for record in facts.topic("ai.responses"):
        answered[record.partition].append(record.at)
    found = []
    for event in facts.events:
        if event["event"] in SILENCING:
            longest = max((_silence(sorted(times), event["t"]) for times in answered.values()), default=None)
            found.append({**event, "silence": longest})
    return found


def _silence(times: Sequence[float], fault: float) -> float:
    first = max(0, bisect_left(times, fault) - 1)
    longest = 0.0
    for before, after in zip(times[first:], times[first + 1 :], strict=False):
        if before > fault + SILENCE_BEGINS:
            break
        longest = max(longest, after - max(before, fault))
    return round(longest, 1)


def not_the_ledger(
    said: Mapping[tuple[str, str], Mapping[str, Any]], ledger: Mapping[tuple[str, str], Decimal]
) -> list[object]:
    """Accounts, as they were said, that are not the ledger or hold a reservation."""
    return [
        (account[0], state["spent"], str(ledger.get(account)), state["reserved"], state["open_requests"])
        for account, state in said.items()
        if Decimal(state["spent"]) != ledger.get(account, Decimal(0)) or Decimal(state["reserved"]) != 0
    ]
