-- Web searches that the provider charges for, beside the tokens; and written tokens that are kept for an hour.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS search_requests UInt64 AFTER reasoning_tokens;
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS cache_write_1h_tokens UInt64 AFTER cache_write_tokens;

CREATE OR REPLACE VIEW ledger AS
SELECT
    workspace_id, request_id, attempt, toYYYYMM(started_at) AS month, kind, provider, model, user_id, purpose, lane,
    outcome, error_code,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens,
    cache_write_1h_tokens, reasoning_tokens, search_requests, cost, cost_source, requested_at, started_at, latency, recorded_at
FROM attempts FINAL;
