"""What is proposed: budgets, limits and models, read from the texts of the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase

from pydantic import ValidationError

from schemas.budget import BudgetChange
from schemas.codec import explain
from streams.budgets import Budget
from streams.dispatch.quota import Limits

LIMITS = ("rpm", "rph", "tpm", "tph")
_NUMBER = re.compile(r"^[1-9][0-9]{0,17}\Z")


class ProposalError(ValueError):
    """A text that proposes nothing that can be tried. The message is for the person who wrote it."""


@dataclass(frozen=True)
class Model:
    """What is called instead; without a provider, at the same one."""

    name: str
    provider: str | None = None


@dataclass(frozen=True)
class Proposal:
    """What would have been otherwise: budgets by workspace, limits by quota (`claude`, `claude:opus`), and models by
    the pattern of what they stand in for.
    """

    budgets: Mapping[str, Budget] = field(default_factory=dict)
    limits: Mapping[str, Limits] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    def model_for(self, name: str) -> Model | None:
        """What is proposed instead of a model; the first pattern that fits."""
        return next((new for pattern, new in self.models.items() if fnmatchcase(name, pattern)), None)

    def __bool__(self) -> bool:
        return bool(self.budgets or self.limits or self.models)


def budget(text: str, default: Budget) -> tuple[str, Budget]:
    """`acme=50` or `acme=50:refuse`. Raises ProposalError."""
    workspace, found, amount = text.partition("=")
    amount, _, action = amount.partition(":")
    if not (workspace and found and amount):
        raise ProposalError(f"{text!r} is no budget; write it like acme=50 or acme=50:refuse")
    values = {"amount": amount, "action": action or None}
    try:
        change = BudgetChange.model_validate({"workspace_id": workspace, **values})
    except ValidationError as error:
        raise ProposalError(f"{text!r} is no budget: {explain(error)}") from None
    return workspace, default.changed(change)


def limit(text: str, known: Mapping[str, Limits], shards: Mapping[str, int]) -> tuple[str, Limits]:
    """`claude:rpm=20,tpm=40000` or `claude:opus:rpm=none`; what is not named is as in `known`. Raises ProposalError.

    `shards` says how many lanes share the limits of a target.
    """
    target, colon, stated = text.rpartition(":")
    if not colon:
        raise ProposalError(f"{text!r} is no limit; write it like claude:rpm=20 or claude:opus:rpm=20,tpm=40000")
    if target not in known:
        raise ProposalError(f"there is no {target}; there are {', '.join(known)}")
    values = dict(_limit(part, text) for part in stated.split(","))
    found = replace(known[target], **values)
    if reason := found.too_small_for(shards.get(target, 1)):
        raise ProposalError(f"{target}: {reason}")
    return target, found


def _limit(part: str, text: str) -> tuple[str, int | None]:
    name, _, value = part.partition("=")
    if name not in LIMITS:
        raise ProposalError(f"{text!r}: {name!r} is none of {', '.join(LIMITS)}")
    if value == "none":
        return name, None
    if not _NUMBER.match(value):
        raise ProposalError(f"{text!r}: {value!r} is no number from 1 on, and not none")
    return name, int(value)


def model(text: str, providers: Collection[str]) -> tuple[str, Model]:
    """`gpt-4o=gpt-4o-mini`, or with another provider `gpt-4o=claude/claude-haiku-4-5`. Raises ProposalError."""
    old, found, new = text.partition("=")
    if not (old and found and new):
        raise ProposalError(f"{text!r} is no change of a model; write it like gpt-4o=gpt-4o-mini")
    provider, slash, name = new.partition("/")
    return old, Model(name, provider) if slash and provider in providers else Model(new)


def told(proposal: Proposal) -> list[str]:
    """The proposal for people, a line for each part."""
    return [
        *(
            f"budget of {name}: ${_plain(each.amount)} a month, {each.action}"
            for name, each in proposal.budgets.items()
        ),
        *(f"limits of {name}: {_limits(each)}" for name, each in proposal.limits.items()),
        *(
            f"model {old}: {new.name}{f' of {new.provider}' if new.provider else ''}"
            for old, new in proposal.models.items()
        ),
    ]


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _limits(found: Limits) -> str:
    stated = {name: getattr(found, name) for name in LIMITS}
    return ", ".join(f"{name} {value:,}" for name, value in stated.items() if value is not None) or "none"
