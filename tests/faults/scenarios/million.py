"""A million exchanges: memory stays flat, the spool empties, rows are requests; CPU and bytes per exchange.

A second gateway without recording takes a share of the requests in between, so that the difference is what recording
costs. Run it on an otherwise idle machine to quote its figures.
"""

import os
import statistics
import threading
import time

from load import Load, mix, percentile
from processes import Gateway
from store import finish, wait_for_rows

TICKS = os.sysconf("SC_CLK_TCK")
#: The memory of the last quarter over that of the second. Only a leak makes it more.
GROWTH_MAX = 1.25
SLACK_MIB = 16
ROUNDS = 8


def cpu_us(pid):
    """User and system time of a process so far, in µs."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / TICKS


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


class Sampler:
    """Memory of a process, twice a second."""

    def __init__(self, pid):
        self.pid, self.samples, self.over = pid, [], threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.over.wait(0.2 if len(self.samples) < 100 else 0.5):
            self.samples.append(rss_mib(self.pid))

    def quarters(self):
        """Medians of the four quarters, in MiB."""
        self.over.set()
        self.thread.join()
        n = len(self.samples)
        return [statistics.median(self.samples[i * n // 4 : (i + 1) * n // 4]) for i in range(4)]


def run(stage, report, short):
    exchanges = 20_000 if short else 1_000_000
    stage.start_clickhouse()
    on = Gateway(stage, "million", stage.clickhouse_url, seal_after="1s").start()
    off = Gateway(stage, "million-off", sink="none").start()
    sampler = Sampler(on.process.pid)
    spent, sent, complete, failed, times, seconds = {on: 0.0, off: 0.0}, {on: 0, off: 0}, [], 0, [], 0.0
    for _ in range(ROUNDS):
        # Half as many without recording would do as well; a fifth keeps the whole short.
        for gateway, count in ((on, exchanges // ROUNDS), (off, exchanges // ROUNDS // 5)):
            before = cpu_us(gateway.process.pid)
            load = Load(gateway.address, mix(gateway.key), connections=32, count=count).start().wait(1200)
            if gateway is on:
                complete += load.complete
                failed += load.failed
                seconds += load.took
                times += (took * 1e3 for _, took in load.times)
                # What is still to be shipped costs as well.
                wait_for_rows(stage.clickhouse, on.database, sent[on] + load.sent)
            spent[gateway] += cpu_us(gateway.process.pid) - before
            sent[gateway] += load.sent
    quarters = sampler.quarters()
    rss_off = rss_mib(off.process.pid)
    spool_bytes = on.metric("promptgate_spool_bytes")
    report.equal("bytes left in the spool", spool_bytes, 0)
    per_spool = bytes_on_the_spool(stage, on, 1000)
    total = sent[on] + 1000
    wait_for_rows(stage.clickhouse, on.database, total)
    lost = on.records("spool", "lost")
    counts = finish(report, on, stage.clickhouse, "million")
    off.stop()
    parts = stage.clickhouse.sql(
        "SELECT sum(rows), sum(bytes_on_disk), sum(data_uncompressed_bytes) FROM system.parts "
        f"WHERE active AND database = '{on.database}' AND table = 'exchanges'")
    rows, on_disk, plain = (int(n) for n in parts.split("\t"))
    times.sort()
    report.row(case="recorded", requests=total, complete=len(complete) + 1000, failed=failed, **counts.cells(), lost=lost,
               requests_a_second=sent[on] / seconds, p50_ms=percentile(times, 0.5), p99_ms=percentile(times, 0.99))
    with_, without = spent[on] / sent[on], spent[off] / sent[off]
    report.note("gateway RSS in MiB, medians of the quarters: " + ", ".join(f"{mib:.1f}" for mib in quarters)
                + f"; peak {max(sampler.samples):.1f}; without recording, at the end {rss_off:.1f}")
    report.note(f"gateway CPU a request: {with_:.1f} µs with recording, {without:.1f} µs without: {with_ - without:.1f} µs a record")
    report.note(f"bytes an exchange: {per_spool:.0f} on the spool, {plain / rows:.0f} in ClickHouse before compression, "
                f"{on_disk / rows:.0f} on its disk")
    report.note(f"spool empty at the end; machine: {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    report.equal("failed requests", failed, 0)
    report.equal("rows", counts.rows, total)
    report.equal("lost", lost, 0)
    limit = quarters[1] * GROWTH_MAX + SLACK_MIB
    report.check(quarters[3] <= limit, f"memory grows: {quarters[3]:.0f} MiB in the last quarter, {quarters[1]:.0f} in the second")


def bytes_on_the_spool(stage, gateway, count):
    """Bytes a record takes there: what waits while ClickHouse is down, by the records."""
    stage.clickhouse.fault(down=True)
    Load(gateway.address, mix(gateway.key), connections=32, count=count).start().wait(120)
    waiting = gateway.metric("promptgate_spool_bytes")
    stage.clickhouse.fault(down=False)
    return waiting / count
