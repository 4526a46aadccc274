-- What was asked and answered. Empty unless AI_STORE_CONTENT says that it is kept, and then for AI_CONTENT_RETENTION_DAYS.
CREATE TABLE IF NOT EXISTS contents
(
    workspace_id LowCardinality(String),
    request_id   String,
    side         Enum8('request' = 0, 'answer' = 1),
    kind         LowCardinality(String),
    text         String CODEC(ZSTD(3)),
    at           DateTime64(3, 'UTC'),
    recorded_at  DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(recorded_at)
PARTITION BY toYYYYMM(at)
ORDER BY (workspace_id, request_id, side)
COMMENT 'Prompts and answers, where a setting says that they are kept; read it with FINAL';
