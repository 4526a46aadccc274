-- The ledger: one row per attempt at a provider.
--
-- An attempt may arrive several times. Rows with the same sorting key are one attempt, and the one with the highest
-- `version` counts; the sender computes it from the event alone (app/clickhouse/rows.py), so the order of arrival says
-- nothing. `started_at` is the same in every repeat of an attempt, which is why it may be part of the partition and of
-- the key. The hour stands before the request id, so that a new part overlaps only with the latest ones and a month is
-- summed without merging all of it.
--
-- Retention: this is the place for a TTL (TTL toDateTime(started_at) + INTERVAL … MONTH). Until then a month goes with
-- ALTER TABLE attempts DROP PARTITION 202601.
CREATE TABLE IF NOT EXISTS attempts
(
    workspace_id       LowCardinality(String),
    request_id         String,
    attempt            UInt32,
    version            UInt64,

    kind               LowCardinality(String),
    provider           LowCardinality(String),
    model              LowCardinality(String),
    user_id            Nullable(String),
    purpose            LowCardinality(Nullable(String)),
    lane               LowCardinality(String),

    outcome            Enum8('in_doubt' = 0, 'failed' = 1, 'succeeded' = 2),
    error_code         LowCardinality(Nullable(String)),

    prompt_tokens      UInt64,
    completion_tokens  UInt64,
    total_tokens       UInt64 MATERIALIZED prompt_tokens + completion_tokens,
    cached_tokens      UInt64,
    cache_write_tokens UInt64,
    reasoning_tokens   UInt64,

    cost               Decimal(18, 9) COMMENT 'US dollars',
    cost_source        Enum8('unpriced' = 0, 'estimated' = 1, 'computed' = 2, 'reported' = 3),

    requested_at       DateTime64(3, 'UTC'),
    started_at         DateTime64(3, 'UTC'),
    latency            Float64 COMMENT 'seconds of the call',
    recorded_at        DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),

    INDEX by_request request_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(started_at)
ORDER BY (workspace_id, toStartOfHour(started_at), request_id, attempt)
COMMENT 'One row per attempt at a provider; read it through the view `ledger`';
