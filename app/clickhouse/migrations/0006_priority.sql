-- How urgent a request was, for whoever looks for what can wait; unknown for attempts from before.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS priority LowCardinality(Nullable(String)) AFTER lane;

CREATE OR REPLACE VIEW ledger AS
SELECT
    workspace_id, request_id, attempt, toYYYYMM(started_at) AS month, kind, provider, model, user_id, purpose, lane,
    priority, outcome, error_code,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens,
    cache_write_1h_tokens, reasoning_tokens, search_requests, cost, cost_source, budget_month, requested_at, started_at,
    latency, recorded_at
FROM attempts FINAL;

-- What became of each request, also of those that made no attempt; content is not here.
CREATE OR REPLACE VIEW answers AS
SELECT
    workspace_id, request_id, kind, status, error_code, provider, model, user_id, purpose, cached, attempts,
    prompt_tokens, completion_tokens, total_tokens, cost, saved, budget_month, requested_at, answered_at, latency,
    time_to_first_chunk
FROM outcomes FINAL;

-- The announced alerts, each once.
CREATE OR REPLACE VIEW announcements AS
SELECT workspace_id, event_id, kind, month, threshold, spent, budget, percent, forecast, observed_at
FROM alerts FINAL;

-- The figures of each workspace and hour: from these a question about all workspaces is answered at once.
CREATE OR REPLACE VIEW hourly AS
SELECT
    workspace_id, hour, budget_month, attempts, failed_attempts, in_doubt_attempts, unpriced_attempts,
    prompt_tokens, completion_tokens, total_tokens, cost, estimated_cost
FROM usage_hours FINAL;
