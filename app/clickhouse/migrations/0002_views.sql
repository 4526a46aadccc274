-- The ledger as people should read it: each attempt once. `attempts` itself may hold repeats that are not merged yet.
-- Filter by `started_at`, `month` or `workspace_id`: these find their rows without reading the others.
CREATE VIEW IF NOT EXISTS ledger AS
SELECT
    workspace_id, request_id, attempt, toYYYYMM(started_at) AS month, kind, provider, model, user_id, purpose, lane,
    outcome, error_code,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
    cost, cost_source, requested_at, started_at, latency, recorded_at
FROM attempts FINAL;

-- What became of each request that reached a provider, over all its attempts. One that was answered from the cache,
-- refused or too late made no attempt and is not here.
CREATE VIEW IF NOT EXISTS requests AS
SELECT
    a.workspace_id AS workspace_id,
    a.request_id AS request_id,
    count() AS attempts,
    if(countIf(a.outcome = 'succeeded') > 0, 'succeeded', toString(argMax(a.outcome, a.attempt))) AS outcome,
    argMax(a.provider, (a.outcome = 'succeeded', a.attempt)) AS provider,
    argMax(a.model, (a.outcome = 'succeeded', a.attempt)) AS model,
    -- A tuple, because argMax passes over NULL and would answer with an older attempt's code.
    if(countIf(a.outcome = 'succeeded') > 0, NULL, argMax(tuple(a.error_code), a.attempt).1) AS error_code,
    countIf(a.outcome = 'in_doubt') AS in_doubt_attempts,
    sum(a.total_tokens) AS total_tokens,
    sum(a.cost) AS cost,
    min(a.started_at) AS first_started_at,
    max(a.started_at) AS last_started_at
FROM attempts AS a FINAL
GROUP BY a.workspace_id, a.request_id;
