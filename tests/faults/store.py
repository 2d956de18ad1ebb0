"""What ClickHouse has of a gateway's requests."""

from processes import until


class Counts:
    """Rows, different ids, rollup and outcomes at one moment."""

    def __init__(self, clickhouse, database):
        table = clickhouse.sql(
            "SELECT count(), uniqExact(exchange_id), countIf(outcome = 'aborted'), countIf(outcome != 'ok'), "
            "sum(total_tokens) FROM exchanges", database)
        self.rows, self.distinct, self.aborted, errors, tokens = (int(n) for n in table.split("\t"))
        rollup = clickhouse.sql("SELECT sum(requests), sum(errors), sum(total_tokens) FROM rollup_minute", database)
        self.rollup, rollup_errors, rollup_tokens = (int(n) for n in rollup.split("\t"))
        #: Does the rollup say what the table says?
        self.agrees = (self.rows, errors, tokens) == (self.rollup, rollup_errors, rollup_tokens)

    @property
    def duplicates(self):
        return self.rows - self.distinct

    def cells(self):
        return {"rows": self.rows, "distinct": self.distinct, "rollup": self.rollup, "aborted": self.aborted,
                "duplicates": self.duplicates}


def rows(clickhouse, database):
    """How many rows there are; 0 while there is no table."""
    try:
        return int(clickhouse.sql("SELECT count() FROM exchanges", database))
    except Exception:
        return 0


def wait_for_rows(clickhouse, database, wanted, seconds=120):
    """Waits until there are so many rows, or until the time is over; returns how many there are."""
    try:
        until("rows", lambda: rows(clickhouse, database) >= wanted, seconds, 0.2)
    except Exception:
        pass
    return rows(clickhouse, database)


def shipped(gateway, seconds=90):
    """Waits until the spool is empty: what is no row then will never be one."""
    until("the spool is empty", lambda: gateway.metric("promptgate_spool_bytes") == 0, seconds, 0.2)


def ids(clickhouse, database, where="1"):
    """The exchange ids of rows, with repetitions."""
    text = clickhouse.sql(f"SELECT toString(exchange_id) FROM exchanges WHERE {where}", database)
    return text.split("\n") if text else []


def finish(report, gateway, clickhouse, case):
    """Stops a gateway, checks how it ended and that its spool is empty, and returns the counts."""
    report.equal(f"{case}: exit code after SIGTERM", gateway.stop(), 0)
    report.equal(f"{case}: segments left in the spool", len(gateway.segments()), 0)
    counts = Counts(clickhouse, gateway.database)
    report.check(counts.agrees, f"{case}: the rollup counts {counts.rollup} requests, the table {counts.rows}")
    report.equal(f"{case}: duplicates", counts.duplicates, 0)
    report.check("panicked" not in gateway.logs(), f"{case}: a thread panicked")
    return counts
