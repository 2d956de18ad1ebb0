"""Fixtures: gateways with traffic, Prometheus that has seen it, ClickHouse that has its records; a table of results."""

import time

import pytest

from clickhouse import ClickHouse
from processes import RUNNING, Gateway, MockProvider, Prometheus, temporary_folder, wait_for
from traffic import Traffic, configuration

ROUNDS = 4
#: Rows that each query gave, for the table at the end: {(dashboard, where): {selection: rows}}.
RESULTS = {}


@pytest.fixture(scope="session")
def mock(tmp_path_factory):
    process = MockProvider(temporary_folder(tmp_path_factory, "mock"))
    yield process
    process.stop()


@pytest.fixture(scope="session")
def gateway(mock, tmp_path_factory):
    """The gateway that Prometheus scrapes; the embedded store takes its records."""
    # A second of sealing: the spool then has something in it whenever it is looked at.
    text = configuration(mock.url, 'sink = "sqlite"\nseal_after = "1s"')
    process = Gateway(temporary_folder(tmp_path_factory, "gateway"), text)
    yield process
    process.stop()


@pytest.fixture(scope="session")
def prometheus(gateway, mock, tmp_path_factory):
    """Prometheus after some rounds of traffic, each of which it has scraped; `since` and `until` frame them."""
    process = Prometheus(temporary_folder(tmp_path_factory, "prometheus"), gateway.admin_address)
    process.since = int(time.time())
    traffic = Traffic(gateway, mock)
    traffic.seed()
    traffic.hold_stream()
    for number in range(ROUNDS):
        traffic.round()
        counted = gateway.count("promptgate_requests_total")
        wait_for("a scrape", lambda: process.number("sum(promptgate_requests_total)") >= counted)
        traffic.split(80 - number, 20 + number)
    batches = "increase(promptgate_sink_insert_duration_seconds_count[1m])"
    wait_for("a scrape after a batch", lambda: process.number(batches) > 0)
    process.until = int(time.time()) + 1
    yield process
    traffic.release()
    process.stop()


@pytest.fixture(scope="session")
def recorded(mock, tmp_path_factory):
    """ClickHouse with the records of a gateway that writes to it; `since` and `until` frame them."""
    clickhouse = ClickHouse()
    text = configuration(mock.url, clickhouse.configuration())
    process = Gateway(temporary_folder(tmp_path_factory, "clickhouse-gateway"), text)
    clickhouse.since = int(time.time()) - 120
    try:
        traffic = Traffic(process, mock)
        traffic.seed()
        for number in range(2):
            traffic.round()
            traffic.split(80 - number, 20 + number)
        traffic.round()
        ids = ", ".join(f"'{exchange['exchange_id']}'" for exchange in traffic.exchanges)
        count = lambda sql: int(clickhouse.read(sql)[1][0][0])
        wait_for(
            "the records in ClickHouse",
            lambda: count(f"SELECT count() FROM exchanges WHERE exchange_id IN ({ids})") == len(traffic.exchanges)
            and count("SELECT count() FROM feedback") == traffic.feedback,
        )
        clickhouse.until = int(time.time()) + 1
        yield clickhouse
    finally:
        process.stop()
        clickhouse.drop()


@pytest.fixture
def result():
    """Notes the rows of a query for the table."""

    def note(query, selection, rows):
        RESULTS.setdefault((query.dashboard, query.where), {})[selection] = rows

    return note


def pytest_unconfigure():
    """A fixture that failed halfway leaves nothing running."""
    for process in RUNNING:
        if process.poll() is None:
            process.kill()


def pytest_terminal_summary(terminalreporter):
    if not RESULTS:
        return
    terminalreporter.section("rows that each query gave: everything chosen, one of each chosen")
    width = max(len(where) for _, where in RESULTS)
    for name in sorted({name for name, _ in RESULTS}):
        terminalreporter.write_line(name)
        for (dashboard, where), rows in RESULTS.items():
            if dashboard == name:
                counts = "".join(f"{rows.get(selection, '-'):>8}" for selection in ("all", "one"))
                terminalreporter.write_line(f"  {where:<{width}}{counts}")
