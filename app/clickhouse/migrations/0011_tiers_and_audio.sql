-- Shares of the tokens that were sound, and the tier of service where it was not the usual one: both have rates of their own.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS audio_prompt_tokens UInt64 AFTER search_requests;
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS audio_completion_tokens UInt64 AFTER audio_prompt_tokens;
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS service_tier LowCardinality(Nullable(String)) AFTER audio_completion_tokens;

CREATE OR REPLACE VIEW ledger AS
SELECT
    workspace_id, request_id, attempt, toYYYYMM(started_at) AS month, kind, provider, model, user_id, purpose, lane,
    priority, outcome, error_code,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens,
    cache_write_1h_tokens, reasoning_tokens, search_requests, audio_prompt_tokens, audio_completion_tokens, service_tier,
    cost, cost_source, budget_month, requested_at, started_at, latency, recorded_at
FROM attempts FINAL;
