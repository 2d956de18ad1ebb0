"""What Grafana does with a dashboard before a query leaves it: variables and macros.

Source: https://github.com/grafana/clickhouse-datasource (pkg/macros/macros.go and src/data/CHDatasource.ts, 4.20) for
ClickHouse; Grafana's Prometheus data source for `$__rate_interval` and the escaping of values.
"""

import dataclasses
import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).parents[2] / "dashboards"
PROMETHEUS, CLICKHOUSE = "prometheus", "grafana-clickhouse-datasource"
ALL = "$__all"
#: Grafana's default for the "Scrape interval" of a Prometheus data source, in seconds.
SCRAPE_INTERVAL = 15
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::(\w+))?\}|(\w+))")


@dataclasses.dataclass(frozen=True)
class Query:
    """One thing a dashboard asks its data source: of a panel, a variable or an annotation."""

    dashboard: str
    where: str
    text: str
    legend: str = ""
    instant: bool = False
    time_series: bool = False
    kind: str = "panel"

    def __str__(self):
        return f"{self.dashboard}: {self.where}"


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a viewer chose: the time range, and each variable's value (a list, text, or ALL)."""

    name: str
    since: int
    until: int
    values: dict

    def interval(self):
        """Seconds of `$__interval` for a panel about 1,000 pixels wide."""
        return max((self.until - self.since) // 1000, 1)


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def panels(dashboard):
    """All panels but rows."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels", [])
        if panel["type"] != "row":
            yield panel


def variables(dashboard):
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def queries(name):
    """Everything the dashboard asks for."""
    dashboard = load(name)
    for variable in variables(dashboard).values():
        if variable["type"] == "query":
            query = variable["query"]
            yield Query(name, f"variable {variable['name']}", query.get("rawSql") or query["query"], kind="variable")
    for annotation in dashboard["annotations"]["list"]:
        if not annotation.get("builtIn"):
            target = annotation["target"]
            text = target.get("rawSql") or target["expr"]
            yield Query(name, f"annotation {annotation['name']}", text, kind="annotation")
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Query(
                name,
                f"{panel['title']} / {target['refId']}",
                target.get("rawSql") or target["expr"],
                target.get("legendFormat", ""),
                bool(target.get("instant")),
                target.get("format") == 0,
            )


def for_prometheus(query, selection):
    """The PromQL that Prometheus gets."""
    span = selection.until - selection.since
    interval = max(selection.interval(), SCRAPE_INTERVAL)
    values = {
        "__interval": f"{interval}s",
        "__interval_ms": str(interval * 1000),
        "__rate_interval": f"{max(interval + SCRAPE_INTERVAL, 4 * SCRAPE_INTERVAL)}s",
        "__range": f"{span}s",
        "__range_s": str(span),
    }
    defined = variables(load(query.dashboard))

    def value(name, _):
        if name in values:
            return values[name]
        chosen = selection.values[name]
        if chosen == ALL:
            if custom := defined[name].get("allValue"):
                return custom
            chosen = selection.values[f"{name}!all"]
        return _prometheus_value(chosen)

    return _substitute(query.text, value)


def _prometheus_value(chosen):
    escape = lambda text: re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", text.replace("\\", "\\\\\\\\"))
    if isinstance(chosen, str):
        return escape(chosen)
    texts = [escape(text) for text in chosen]
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def for_clickhouse(query, selection):
    """The SQL that ClickHouse gets."""
    text = query.text

    def conditional(condition, variable):
        found = VARIABLE.search(variable)
        name = found and (found.group(1) or found.group(3))
        return "1=1" if selection.values[name] in (ALL, "") else condition

    text = _expand(text, "conditionalAll", conditional)

    def value(name, form):
        if name.startswith("__"):
            return None
        chosen = selection.values[name]
        if chosen == ALL:
            chosen = selection.values[f"{name}!all"]
        if isinstance(chosen, str):
            return chosen
        quoted = [text.replace("'", "''") if form == "sqlstring" else text for text in chosen]
        return ",".join(f"'{text}'" for text in quoted)

    return _macros(_substitute(text, value), selection)


def _macros(text, selection):
    since, until = f"toDateTime({selection.since})", f"toDateTime({selection.until})"
    since_ms = f"fromUnixTimestamp64Milli({selection.since * 1000})"
    until_ms = f"fromUnixTimestamp64Milli({selection.until * 1000})"
    seconds = selection.interval()
    macros = {
        "timeFilter_ms": lambda column: f"{column} >= {since_ms} AND {column} <= {until_ms}",
        "timeFilter": lambda column: f"{column} >= {since} AND {column} <= {until}",
        "timeInterval": lambda column: f"toStartOfInterval(toDateTime({column}), INTERVAL {seconds} second)",
        "fromTime_ms": lambda: since_ms,
        "toTime_ms": lambda: until_ms,
        "fromTime": lambda: since,
        "toTime": lambda: until,
        "interval_s": lambda: str(seconds),
    }
    for name, macro in macros.items():
        text = _expand(text, name, macro)
    if left := re.search(r"\$\w+|\$\{[^}]*\}", text):
        raise ValueError(f"{left.group()} is no variable of the dashboard and no macro of the plugin")
    return text


def _substitute(text, value):
    def one(found):
        name, form = found.group(1) or found.group(3), found.group(2)
        try:
            replaced = value(name, form)
        except KeyError:
            raise ValueError(f"{found.group()} is no variable of the dashboard") from None
        return found.group() if replaced is None else replaced

    return VARIABLE.sub(one, text)


def _expand(text, name, macro):
    """Replaces each `$__name(arguments)`; arguments are split at commas outside of parentheses."""
    pattern = re.compile(rf"\$__{name}\b")
    while found := pattern.search(text):
        arguments, end = [], found.end()
        if text[end : end + 1] == "(":
            arguments, end = _arguments(text, end)
        elif name == "conditionalAll":
            raise ValueError("$__conditionalAll needs its arguments")
        text = text[: found.start()] + macro(*arguments) + text[end:]
    return text


def _arguments(text, opening):
    depth, start, arguments = 0, opening + 1, []
    for at in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0 or (depth == 1 and text[at] == ","):
            arguments.append(text[start:at].strip())
            start = at + 1
        if depth == 0:
            return [argument for argument in arguments if argument], at + 1
    raise ValueError(f"a parenthesis is not closed: {text[opening:]}")
