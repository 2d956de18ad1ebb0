"""The Prompts and variants dashboard: every query is run by ClickHouse on records that a real gateway wrote."""

import allowed
import grafana
from traffic import ENVIRONMENT, OTHER_PROMPT, PROMPT, ROUTED

NAME = "prompts-and-variants"
QUERIES = list(grafana.queries(NAME))
PANELS = [query for query in QUERIES if query.kind == "panel"]
VARIABLES = [query for query in QUERIES if query.kind == "variable"]
ANNOTATIONS = [query for query in QUERIES if query.kind == "annotation"]
NUMBER = ("UInt", "Int", "Float", "Decimal", "Nullable(UInt", "Nullable(Int", "Nullable(Float")
CHOICES = {
    "all": {"prompt": grafana.ALL, "environment": grafana.ALL, "model": grafana.ALL, "bucket": "1m"},
    "one": {"prompt": [PROMPT], "environment": [ENVIRONMENT], "model": ROUTED, "bucket": "5m"},
}


def run(clickhouse, query, values):
    selection = grafana.Selection("", clickhouse.since, clickhouse.until, values)
    return clickhouse.read(grafana.for_clickhouse(query, selection))


def test_every_query_shows_something(recorded, result, subtests):
    for name, values in CHOICES.items():
        for query in PANELS:
            with subtests.test(f"{query} ({name})"):
                columns, rows = run(recorded, query, values)
                result(query, name, len(rows))
                check_rows(query, columns, rows)


def check_rows(query, columns, rows):
    assert rows, "the query has no result"
    for at, (column, type) in enumerate(columns):
        if type.startswith(NUMBER) and (query.dashboard, f"{query.where}: {column}") not in allowed.ZERO:
            assert any(row[at] not in (None, 0, "0") for row in rows), f"column {column} has nothing but 0"
    if query.time_series:
        times = [row[0] for row in rows]
        assert columns[0][1].startswith("DateTime"), "the first column of a time series is its time"
        assert times == sorted(times), "the plugin wants time series in the order of time"
        assert any(type.startswith(NUMBER) for _, type in columns), "a time series needs a number"
    legend = {name for panel in grafana.panels(grafana.load(NAME)) for name in _legend(panel, query)}
    assert legend <= {column for column, _ in columns}, "the legend names a column that is not there"


def _legend(panel, query):
    if query.where.rsplit(" / ", 1)[0] != panel["title"]:
        return []
    text = panel["fieldConfig"]["defaults"].get("displayName", "")
    return [part.split("}")[0] for part in text.split("${__field.labels.")[1:]]


def test_every_variable_has_values(recorded, result, subtests):
    wanted = {"prompt": {PROMPT, OTHER_PROMPT}, "environment": {ENVIRONMENT}, "model": set(ROUTED)}
    for query in VARIABLES:
        with subtests.test(str(query)):
            _, rows = run(recorded, query, CHOICES["all"])
            result(query, "all", len(rows))
            assert wanted[query.where.removeprefix("variable ")] <= {row[0] for row in rows}


def test_annotation_marks_each_deployment(recorded, result):
    """Three of one prompt were used, and one of the other."""
    (query,) = ANNOTATIONS
    columns, rows = run(recorded, query, CHOICES["all"])
    result(query, "all", len(rows))
    names = [name for name, _ in columns]
    assert names == ["time", "title", "text", "tags"]
    texts = [row[names.index("text")] for row in rows]
    changed = [text for text in texts if text.startswith(f"{PROMPT}@{ENVIRONMENT} deployment ")]
    assert len(changed) == 3, texts
    assert len(texts) == 4, texts
    assert all("control v1" in text for text in texts)


def test_every_time_bucket_is_understood(recorded, subtests):
    """Each that can be chosen, and those that Grafana computes for "auto"."""
    query = next(query for query in PANELS if "$bucket" in query.text)
    chosen = grafana.variables(grafana.load(NAME))["bucket"]["query"].split(",")
    for bucket in [*chosen, "2m", "10m", "20m", "30m", "2h", "3h", "12h", "7d", "30d", "1y"]:
        with subtests.test(bucket):
            _, rows = run(recorded, query, {**CHOICES["all"], "bucket": bucket})
            assert rows


def test_texts_of_a_choice_cannot_break_a_query(recorded):
    query = next(query for query in PANELS if "${prompt:sqlstring}" in query.text)
    _, rows = run(recorded, query, {**CHOICES["all"], "prompt": ["it's", "') OR 1=1 --"]})
    assert not [row for row in rows if any(row)] or rows[0][0] in (0, "0")


def test_scores_by_response_id_find_their_exchange(recorded):
    query = next(query for query in PANELS if query.where.startswith("Feedback by arm"))
    _, rows = run(recorded, query, CHOICES["all"])
    assert {"stars", "helpful", "polite"} == {row[1] for row in rows}
    assert all(row[0].startswith(PROMPT) for row in rows), "only the prompt's exchanges have scores"


def test_figures_agree_with_the_exchanges(recorded):
    """The rollup counts each record once."""
    query = next(query for query in PANELS if query.where.startswith("Top prompts"))
    columns, rows = run(recorded, query, CHOICES["all"])
    names = [name for name, _ in columns]
    shown = {row[names.index("Prompt")]: int(row[names.index("Requests")]) for row in rows}
    _, counted = recorded.read("SELECT if(prompt_id = '', '(no prompt)', prompt_id), count() FROM exchanges GROUP BY 1")
    assert shown == {prompt: int(count) for prompt, count in counted}
