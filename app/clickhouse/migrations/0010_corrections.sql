-- Corrections: an attempt's cost that was put right afterwards arrives as a later version of its row, with what it was.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS correction_run Nullable(String);
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS corrected_at Nullable(DateTime64(6, 'UTC'));
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS corrected_by Nullable(String);
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS correction_reason Nullable(String);
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS previous_cost Nullable(Decimal(18, 9));
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS previous_source LowCardinality(Nullable(String));
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS original_cost Nullable(Decimal(18, 9))
    COMMENT 'before any correction: what the budget of its month has counted';

-- All corrections that ever were, also those that a later one has replaced in `attempts`. It is filled by what is written
-- there, so whoever reads the usage topic anew makes the same history again.
CREATE TABLE IF NOT EXISTS corrections
(
    workspace_id    LowCardinality(String),
    request_id      String,
    attempt         UInt32,
    provider        LowCardinality(String),
    model           LowCardinality(String),
    run             String COMMENT 'the corrections that were made together',
    corrected_at    DateTime64(6, 'UTC'),
    corrected_by    String,
    reason          String,
    previous_cost   Decimal(18, 9) COMMENT 'US dollars',
    previous_source LowCardinality(String),
    cost            Decimal(18, 9) COMMENT 'US dollars',
    cost_source     LowCardinality(String),
    original_cost   Decimal(18, 9) COMMENT 'before any correction',
    budget_month    LowCardinality(String),
    started_at      DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (workspace_id, toStartOfHour(started_at), request_id, attempt, corrected_at)
COMMENT 'One row per correction of an attempt; read it with FINAL';

CREATE MATERIALIZED VIEW IF NOT EXISTS corrections_from_attempts TO corrections AS
SELECT
    workspace_id, request_id, attempt, provider, model,
    ifNull(correction_run, '') AS run,
    assumeNotNull(corrected_at) AS corrected_at,
    ifNull(corrected_by, '') AS corrected_by,
    ifNull(correction_reason, '') AS reason,
    ifNull(previous_cost, toDecimal64(0, 9)) AS previous_cost,
    ifNull(toString(previous_source), '') AS previous_source,
    cost,
    toString(cost_source) AS cost_source,
    ifNull(original_cost, toDecimal64(0, 9)) AS original_cost,
    budget_month, started_at
FROM attempts
WHERE correction_run IS NOT NULL;
