"""The Gateway dashboard: every query is run by a real Prometheus that scraped a real gateway."""

import math
import pathlib
import re
import subprocess

import allowed
import grafana
import promql
from processes import tool
from traffic import MODEL, PROMPT, ROUTED

NAME = "gateway"
QUERIES = list(grafana.queries(NAME))
TARGETS = [query for query in QUERIES if query.kind != "variable"]
VARIABLES = [query for query in QUERIES if query.kind == "variable"]
METRICS = pathlib.Path(__file__).parents[2] / "src" / "metrics.rs"
LABEL_VALUES = re.compile(r"label_values\((?:(.+),)?\s*(\w+)\)")


def selection(prometheus, name):
    instances = prometheus.api("label/instance/values", **{"match[]": "promptgate_build_info"})
    choices = {
        "all": {"prompt": grafana.ALL, "model": grafana.ALL, "instance": grafana.ALL},
        "one": {"prompt": [PROMPT], "model": ROUTED, "instance": instances},
    }
    return grafana.Selection(name, prometheus.since, prometheus.until, {**choices[name], "instance!all": instances})


def run(prometheus, query, chosen):
    """Series of the result, as pairs of labels and the values that are numbers."""
    expression = grafana.for_prometheus(query, chosen)
    if query.instant:
        result = prometheus.api("query", query=expression, time=chosen.until)["result"]
        samples = [(series["metric"], [series["value"]]) for series in result]
    else:
        step = max(chosen.interval(), grafana.SCRAPE_INTERVAL)
        # Grafana's steps are multiples of the interval; ours end with the traffic, which lasts hardly longer.
        frame = {"start": chosen.until - 8 * step, "end": chosen.until, "step": step}
        result = prometheus.api("query_range", query=expression, **frame)["result"]
        samples = [(series["metric"], series["values"]) for series in result]
    numbers = [(labels, [float(text) for _, text in values]) for labels, values in samples]
    finite = [(labels, [value for value in values if math.isfinite(value)]) for labels, values in numbers]
    return [(labels, values) for labels, values in finite if values]


def test_every_query_shows_something(prometheus, result, subtests):
    for name in ("all", "one"):
        chosen = selection(prometheus, name)
        for query in TARGETS:
            with subtests.test(f"{query} ({name})"):
                series = run(prometheus, query, chosen)
                result(query, name, len(series))
                check_series(query, series)


def check_series(query, series):
    key = (query.dashboard, query.where)
    if key in allowed.EMPTY and not series:
        return
    assert series, "the query has no result"
    if key not in allowed.ZERO:
        assert any(value for _, values in series for value in values), "all values are 0"
    for label in promql.legend_labels(query.legend):
        assert any(labels.get(label) for labels, _ in series), f"no series has the legend's label {label}"


def test_every_variable_has_values(prometheus, result, subtests):
    for query in VARIABLES:
        with subtests.test(str(query)):
            check_variable(prometheus, query, result)


def check_variable(prometheus, query, result):
    metric, label = LABEL_VALUES.fullmatch(query.text).groups()
    of_metric = grafana.Query(query.dashboard, query.where, metric)
    match = grafana.for_prometheus(of_metric, selection(prometheus, "all"))
    values = [value for value in prometheus.api(f"label/{label}/values", **{"match[]": match}) if value]
    result(query, "all", len(values))
    assert values, f"no series of {match} has the label {label}"
    wanted = {"prompt": PROMPT, "model": MODEL}.get(label)
    assert wanted is None or wanted in values


def test_every_name_exists(prometheus, gateway, subtests):
    exposed = set(re.findall(r"^([a-zA-Z_:][\w:]*)", gateway.metrics(), re.MULTILINE))
    for query in TARGETS + VARIABLES:
        text = query.text
        if query.kind == "variable":
            text, label = LABEL_VALUES.fullmatch(text).groups()
            text = f"sum by ({label}) ({text})"
        with subtests.test(str(query)):
            check_names(prometheus, exposed, text)


def check_names(prometheus, exposed, expression):
    """Metrics, labels, and the values that labels are compared with."""
    known = set()
    for metric, matchers in promql.selectors(expression):
        if metric in allowed.NOT_EXPOSED and metric not in exposed:
            assert f'"{metric}"' in METRICS.read_text(), f"{metric} is not in src/metrics.rs"
            return
        assert metric in exposed, f"the gateway does not expose {metric}"
        series = prometheus.api("series", **{"match[]": metric})
        labels = {label for one in series for label in one}
        known |= labels
        for label, _, value in matchers:
            assert label in labels, f"{metric} has no label {label}"
            seen = {one.get(label) for one in series}
            for text in promql.literal_values(value):
                found = text in seen or (label, text) in allowed.UNSEEN_VALUES
                assert found, f"no series of {metric} has {label} = {text}"
    missing = promql.grouping_labels(expression) - known - {"le"}
    assert not missing, f"grouped by labels that no metric of it has: {missing}"


def test_no_record_is_lost(prometheus):
    assert prometheus.number('sum(promptgate_records_total{result="lost"})') == 0


def test_allow_list_names_real_targets():
    known = {(query.dashboard, query.where) for query in QUERIES}
    assert {key for key in {**allowed.EMPTY, **allowed.ZERO} if key[0] == NAME} <= known


def test_promtool_finds_nothing_wrong_with_metrics(prometheus, gateway):
    """After the traffic, so that every family is there."""
    command = [tool("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=gateway.metrics(), capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr + checked.stdout
