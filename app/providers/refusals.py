"""Whose fault a 4xx is: what a provider's status and words make of it. Pure.

One rule: a 4xx sends the request to the next provider. What one vendor calls invalid another one may take, and whatever
is wrong with an account, a key or a model is wrong at this provider alone. Two things differ. Content that was refused
ends the request: it is not offered to the next vendor. And what may pass by itself is asked for again where it was.

A status alone says little: an empty account and a wrong key are 400 at some, a flagged prompt is 403 at others, a quota
that is used up is 429 at many. So the words are read first. Sources: the error tables of the providers, and bodies that
people have shown in public reports; the tests have one for each form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from streams.dispatch.ports import ErrorClass

RETRYABLE, FALL_BACK, TERMINAL = ErrorClass.RETRYABLE, ErrorClass.FALL_BACK, ErrorClass.TERMINAL

Judgement = tuple[ErrorClass, str]

CONTENT_REFUSED: Judgement = (TERMINAL, "content_refused")
QUOTA_EXHAUSTED: Judgement = (FALL_BACK, "quota_exhausted")
PROMPT_TOO_LONG: Judgement = (FALL_BACK, "prompt_too_long")
NO_SUCH_MODEL: Judgement = (FALL_BACK, "no_such_model")
BAD_KEY: Judgement = (FALL_BACK, "bad_key")
INVALID_REQUEST: Judgement = (FALL_BACK, "invalid_request")
#: Refused by something before the provider (a firewall, a proxy): it says nothing about the key.
BLOCKED: Judgement = (FALL_BACK, "blocked")

#: Where the words say nothing. Sources: the providers' error tables; 498 is Groq's "at capacity" and 499 what gateways
#: say when their own call ended early. 405 and 421 come from a wrong address, which no request can help.
_BY_STATUS: Mapping[int, Judgement] = {
    401: BAD_KEY,
    402: QUOTA_EXHAUSTED,
    403: (FALL_BACK, "forbidden"),
    404: NO_SUCH_MODEL,
    405: (FALL_BACK, "unexpected_status"),
    407: BLOCKED,
    408: (RETRYABLE, "timeout"),
    409: (RETRYABLE, "conflict"),
    410: NO_SUCH_MODEL,
    413: PROMPT_TOO_LONG,
    421: (FALL_BACK, "unexpected_status"),
    424: (FALL_BACK, "failed_dependency"),
    425: (RETRYABLE, "too_early"),
    429: (RETRYABLE, "rate_limited"),
    451: BLOCKED,
    498: (FALL_BACK, "over_capacity"),
    499: (FALL_BACK, "closed_early"),
}


@dataclass(frozen=True)
class _Sign:
    """What tells one kind of refusal: a code or type by what it contains, a message by what it says."""

    judgement: Judgement
    codes: re.Pattern[str]
    words: re.Pattern[str]


def _sign(judgement: Judgement, codes: str, words: str) -> _Sign:
    return _Sign(judgement, re.compile(codes), re.compile(words))


_CONTENT = _sign(
    CONTENT_REFUSED,
    r"content_?(policy|filter)|(usage|cyber|safety)_policy|moderation|data_?inspection_?failed|responsibleaipolicy"
    r"|safety_check|sensitive_?content|censorship|guardrail|prohibited_content",
    r"content (filter|management polic|moderation)|content exists risk|inappropriate content|considered high risk"
    r"|flagged (for|as|by)|was flagged|requires moderation|moderation block"
    r"|violat\w+ (of )?(our |the |\w+'s )?(usage|content|safety|acceptable use|guardrail)"
    r"|(our|the) safety (system|polic)|for safety reasons|sensitive (content|information|words)|敏感"
    r"|blocked by (our |the |a )?(content|safety|moderation|guardrail)|content you provided .{0,40}blocked",
)
_QUOTA = _sign(
    QUOTA_EXHAUSTED,
    r"insufficient_?(quota|balance|credit|fund)|billing_|spend_limit|budget_exceeded|payment_required|arrearage"
    r"|freetieronly|overdue|exceeded_current_quota|credits_exhausted",
    r"reached your (specified )?(\w+ )?(api )?usage limit|credit balance is too low"
    r"|insufficient (account |api )?(balance|credit|fund|quota)|(balance|credits?) (is|are) (insufficient|not enough)"
    r"|not enough (credit|balance)|(out of|used all available|requires? more|purchase more) credits|spend(ing)? limit"
    r"|budget has been exceeded|exceeded (your|the) monthly|\bkey limit exceeded|free (tier|quota) .{0,40}exhausted"
    r"|(failure to pay|unpaid|overdue) |account is in arrears|余额不足|欠费",
)
#: Only where the status does not say "too many requests": of those, Gemini says it for a minute.
_QUOTA_ELSEWHERE = _sign(QUOTA_EXHAUSTED, r"(?!)", r"exceeded your (current )?quota|billing (account|details|is not)")
_LENGTH = _sign(
    PROMPT_TOO_LONG,
    r"context_length|context_window|exceed_context|(prompt|input|string)_too_long|string_above_max|request_too_large"
    r"|token_limit_exceeded",
    r"context (length|window|size|limit)|(prompt|input|message|request|conversation)s? (is |are |was )?too (long|large)"
    r"|(prompt|input) (token count|length)|maximum (prompt|input|model|sequence) length|too many (input )?tokens"
    r"|exceed\w* (the )?(\w+('s)? )?(max\w*|allowed|token|limit of)\b.{0,40}(token|context|length)"
    r"|exceeded model token limit|(entity|body) (is )?too large|larger than the maximum|string too long"
    r"|reduce (the |your )?(length|prompt|input|message)|`?inputs`? (tokens|must have less than)|超长",
)
#: A single request that is larger than what a minute allows never fits, however long one waits.
_LENGTH_OF_LIMITS = _sign(
    PROMPT_TOO_LONG, r"(?!)", r"request too large for|tokens must be reduced|required for long context"
)
_MODEL = _sign(
    NO_SUCH_MODEL,
    r"(model|deployment)_?not_?(found|available|supported|allowed|active|exist)|(invalid|unknown)_model"
    r"|model_(decommissioned|deprecated|terms_required)|model[_.]?access[_.]?denied",
    r"invalid model|(no such|unknown|unsupported) model|not a valid model|no endpoints found|model not exist"
    r"|model\b[^.,:;]{0,80}\b(does not exist|not found|is not (available|supported|found)|decommissioned|deprecated"
    r"|retired)"
    r"|access (to )?(the |this )?model|non-serverless model",
)
_KEY = _sign(
    BAD_KEY,
    r"(invalid|incorrect|expired|missing)_?(api_?key|authentication)|api_?key_?(invalid|expired|not_found|disabled)"
    r"|authentication_error|auth_error|unauthorized|unauthenticated|token_not_found_in_db|expired_key"
    r"|account_(deactivated|disabled)",
    r"(incorrect|invalid|wrong|missing|expired|unknown|malformed|no) (api[ _-]?key|x-api-key|authentication|credential"
    r"|proxy server token)|api[ _-]?key (\w+ ){0,2}(not valid|invalid|expired|not found|missing|disabled|revoked"
    r"|required|incorrect)|authentication (error|fail)|not provide an api key|no connected db",
)

#: First match first: what was flagged stays refused, and a key that may not use a model is no bad key.
_SIGNS = (_CONTENT, _QUOTA, _QUOTA_ELSEWHERE, _LENGTH, _MODEL, _KEY)
#: For statuses that ask to come back: only what no waiting helps.
_SIGNS_OF_LASTING = (_QUOTA, _LENGTH_OF_LIMITS)

#: Fields of an error that hold words or further fields, in all forms that are known. Others may quote the request
#: (`input`, `flagged_input`): what a prompt says must not decide.
_CODES = frozenset({"type", "code", "status", "reason", "error_code", "title"})
_WORDS = frozenset({"message", "msg", "detail", "error", "error_msg", "error_message", "error_description", "raw"})
_INSIDE = frozenset({"details", "errors", "metadata", "innererror", "inner_error", "base_resp"})
_DEEPEST = 5
#: Characters of a text that are read.
_READ = 4_000
#: How a page for browsers begins. It speaks of many things, and what it says is for nobody here.
_PAGE = re.compile(r"\s*<(!doctype|!--|\?xml|html|head|body|center|h1)", re.IGNORECASE)


def judge_refusal(status: int, body: object) -> Judgement:
    """What a 4xx is; `body` is the parsed JSON, or the text, or None."""
    judgement = _BY_STATUS.get(status, INVALID_REQUEST)
    codes, words = _said(body)
    signs = _SIGNS_OF_LASTING if judgement[0] is RETRYABLE else _SIGNS
    for sign in signs:
        if sign.codes.search(codes) or sign.words.search(words):
            return sign.judgement
    if status == HTTPStatus.FORBIDDEN and not isinstance(body, Mapping | list):
        return BLOCKED
    return judgement


def words_of(body: object) -> str:
    """What an error says for people, whatever its form; empty for a page of HTML, and where it says nothing."""
    return next((text.strip() for name, text in _leaves(body) if name in _WORDS and text.strip()), "")


def places_in(body: object, depth: int = 0) -> Iterator[str]:
    """Where in the request an error is: `param` of OpenAI's errors, `loc` of those that pydantic writes."""
    if depth == _DEEPEST:
        return
    if isinstance(body, list):
        for part in body[:8]:
            yield from places_in(part, depth + 1)
    elif isinstance(body, Mapping):
        for name, part in body.items():
            if name in ("param", "loc"):
                yield from (str(one)[:_READ] for one in (part if isinstance(part, list) else [part]))
            else:
                yield from places_in(part, depth + 1)


def _said(body: object) -> tuple[str, str]:
    """All codes and all words of an error, in lower case, one a line."""
    leaves = [(name, text[:_READ].lower()) for name, text in _leaves(body)]
    codes = "\n".join(text for name, text in leaves if name in _CODES)
    return codes, "\n".join(text for name, text in leaves if name in _WORDS)


def _leaves(value: object, name: str = "message", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Each text of an error with the name of its field; a text beside no field is a message."""
    if isinstance(value, str):
        if not _PAGE.match(value):
            yield name, value
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for inner, part in value.items():
            if inner in _CODES or inner in _WORDS or inner in _INSIDE:
                yield from _leaves(part, "message" if inner in _INSIDE else inner, depth + 1)
    elif depth < _DEEPEST and isinstance(value, list):
        for part in value[:8]:
            yield from _leaves(part, name, depth + 1)
