-- Hourly figures, so that a question about all workspaces need not read all attempts.
--
-- They are counted anew and never added to: after each batch the sink counts the hours that it touched from the rows
-- themselves (app/clickhouse/hours.py), each attempt once, and the latest count replaces the earlier ones. A batch that
-- is written twice is counted twice and comes to the same.
CREATE TABLE IF NOT EXISTS usage_hours
(
    workspace_id      LowCardinality(String),
    hour              DateTime('UTC') COMMENT 'of the start of the attempts',
    budget_month      LowCardinality(String),

    attempts          UInt64,
    failed_attempts   UInt64,
    in_doubt_attempts UInt64,
    unpriced_attempts UInt64,
    prompt_tokens     UInt64,
    completion_tokens UInt64,
    total_tokens      UInt64 MATERIALIZED prompt_tokens + completion_tokens,
    cost              Decimal(38, 9) COMMENT 'US dollars',
    estimated_cost    Decimal(38, 9) COMMENT 'the part of it that nobody has confirmed',

    counted_at        DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(counted_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (budget_month, workspace_id, hour)
COMMENT 'Attempts by workspace and hour, counted from `attempts`; read it with FINAL';

CREATE TABLE IF NOT EXISTS outcome_hours
(
    workspace_id LowCardinality(String),
    hour         DateTime('UTC') COMMENT 'of the answers',
    budget_month LowCardinality(String),

    requests     UInt64,
    succeeded    UInt64,
    cached       UInt64,
    saved        Decimal(38, 9) COMMENT 'US dollars that the cache saved',

    counted_at   DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(counted_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (budget_month, workspace_id, hour)
COMMENT 'Outcomes by workspace and hour, counted from `outcomes`; read it with FINAL';

-- What is in the ledger already.
INSERT INTO usage_hours
SELECT
    workspace_id, toStartOfHour(started_at) AS hour, budget_month,
    count(), countIf(outcome = 'failed'), countIf(outcome = 'in_doubt'), countIf(cost_source = 'unpriced'),
    sum(prompt_tokens), sum(completion_tokens),
    sum(cost), sumIf(cost, cost_source IN ('estimated', 'unpriced')), now64(9)
FROM attempts FINAL
GROUP BY workspace_id, hour, budget_month
SETTINGS max_partitions_per_insert_block = 0;

INSERT INTO outcome_hours
SELECT
    workspace_id, toStartOfHour(answered_at) AS hour, budget_month,
    count(), countIf(status = 'succeeded'), countIf(cached), sum(saved), now64(9)
FROM outcomes FINAL
GROUP BY workspace_id, hour, budget_month
SETTINGS max_partitions_per_insert_block = 0;
