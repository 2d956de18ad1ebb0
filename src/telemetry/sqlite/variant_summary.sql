-- ?1 prompt, ?2 environment, ?3 smallest exchange id, ?4 earliest started_at.
-- A row at rank r of n is the p-th percentile if it is the first with r >= p * n.
WITH taken AS MATERIALIZED (
    SELECT version, variant, outcome, total_us, input_tokens, output_tokens, cost_nanodollars,
           CASE WHEN streaming AND time_to_first_token_us > 0 THEN time_to_first_token_us END AS first_us
    FROM exchanges
    WHERE prompt_id = ?1 AND environment = ?2 AND exchange_id >= ?3 AND started_at >= ?4
),
ranked AS (
    SELECT version, variant, outcome, total_us, first_us, input_tokens, output_tokens, cost_nanodollars,
           count(*) OVER arm AS n,
           count(first_us) OVER arm AS first_n,
           row_number() OVER (PARTITION BY version, variant ORDER BY total_us) AS r,
           row_number() OVER (PARTITION BY version, variant ORDER BY first_us NULLS LAST) AS first_r
    FROM taken
    WINDOW arm AS (PARTITION BY version, variant)
)
SELECT version,
       variant,
       count(*) AS requests,
       sum(outcome <> 'ok') AS errors,
       min(total_us) FILTER (WHERE r * 100 >= 50 * n) AS p50_total_us,
       min(total_us) FILTER (WHERE r * 100 >= 99 * n) AS p99_total_us,
       min(first_us) FILTER (WHERE first_r * 100 >= 50 * first_n) AS p50_time_to_first_token_us,
       min(first_us) FILTER (WHERE first_r * 100 >= 99 * first_n) AS p99_time_to_first_token_us,
       sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens,
       sum(cost_nanodollars) AS cost_nanodollars
FROM ranked
GROUP BY version, variant
ORDER BY version, variant
