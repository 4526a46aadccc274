"""What an attempt of the past would have been and cost under a proposal. Pure."""

from __future__ import annotations

from app.repricing import PriceBook
from app.simulate.history import Past
from app.simulate.proposal import Proposal
from schemas.usage import Outcome, UsageEvent


class PriceUnknownError(Exception):
    """A proposed model has no price. The message says what to do."""


def under(proposal: Proposal, past: Past, prices: PriceBook) -> Past:
    """The request as it would have been: another model with the same tokens, at the price of its day.

    What no proposal touches keeps the ledger's cost, to the last digit. Raises PriceUnknownError.
    """
    if not proposal.models:
        return past
    return Past(past.workspace, past.request_id, tuple(_under(proposal, usage, prices) for usage in past.attempts))


def _under(proposal: Proposal, usage: UsageEvent, prices: PriceBook) -> UsageEvent:
    new = proposal.model_for(usage.model)
    if new is None:
        return usage
    provider = new.provider or usage.provider
    changed = {"provider": provider, "model": new.name}
    if usage.outcome is Outcome.FAILED or not (usage.tokens.total_tokens or usage.tokens.search_requests):
        # It was not billed, or nobody knows for what: the ledger's word stays.
        return usage.model_copy(update=changed)
    cost = prices.cost(provider, new.name, usage.tokens, usage.started_at)
    if cost is None:
        raise PriceUnknownError(
            f"Nobody knows what {provider} asks for {new.name}; state the price in AI_SETTINGS_FILE, or name another."
        )
    return usage.model_copy(update={**changed, "cost": cost})
