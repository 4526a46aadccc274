-- Whose month's budget an attempt counts in: that of its request's admission, by the workspace's own clock. It may lie one
-- month beside that of `started_at`.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS budget_month LowCardinality(String)
    DEFAULT formatDateTime(requested_at, '%Y-%m') AFTER cost_source;

-- What became of each request: one row per terminal response, also of those that made no attempt (answered from the
-- cache, refused, too late). A response that is delivered again is the same response, with the same `answered_at`.
CREATE TABLE IF NOT EXISTS outcomes
(
    workspace_id        LowCardinality(String),
    request_id          String,

    kind                LowCardinality(String),
    status              Enum8('rejected' = 0, 'expired' = 1, 'failed' = 2, 'succeeded' = 3),
    error_code          LowCardinality(Nullable(String)),
    provider            LowCardinality(Nullable(String)),
    model               LowCardinality(Nullable(String)),
    user_id             Nullable(String),
    purpose             LowCardinality(Nullable(String)),

    cached              Bool,
    attempts            UInt32,
    prompt_tokens       UInt64,
    completion_tokens   UInt64,
    total_tokens        UInt64 MATERIALIZED prompt_tokens + completion_tokens,
    cost                Decimal(18, 9) COMMENT 'US dollars, over all attempts',
    saved               Decimal(18, 9) COMMENT 'US dollars that the cache saved',
    budget_month        LowCardinality(String),

    requested_at        Nullable(DateTime64(3, 'UTC')),
    answered_at         DateTime64(3, 'UTC'),
    latency             Float64 COMMENT 'seconds from admission to the answer',
    time_to_first_chunk Nullable(Float64) COMMENT 'seconds from the call',
    recorded_at         DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),

    INDEX by_request request_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(recorded_at)
PARTITION BY toYYYYMM(answered_at)
ORDER BY (workspace_id, toStartOfHour(answered_at), request_id)
COMMENT 'One row per request and terminal response; read it with FINAL';

-- Each alert that was announced, once.
CREATE TABLE IF NOT EXISTS alerts
(
    workspace_id LowCardinality(String),
    event_id     String,
    kind         LowCardinality(String),
    month        LowCardinality(String),
    threshold    Nullable(UInt16) COMMENT 'percent of the budget',
    spent        Decimal(18, 9),
    budget       Nullable(Decimal(18, 9)),
    percent      Nullable(Float64),
    forecast     Nullable(Decimal(18, 9)) COMMENT 'US dollars at the end of the month',
    observed_at  DateTime64(3, 'UTC'),
    recorded_at  DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(recorded_at)
ORDER BY (workspace_id, month, event_id)
COMMENT 'One row per announced alert; read it with FINAL';

CREATE OR REPLACE VIEW ledger AS
SELECT
    workspace_id, request_id, attempt, toYYYYMM(started_at) AS month, kind, provider, model, user_id, purpose, lane,
    outcome, error_code,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens,
    cache_write_1h_tokens, reasoning_tokens, search_requests, cost, cost_source, budget_month, requested_at, started_at,
    latency, recorded_at
FROM attempts FINAL;
