"""ClickHouse is down, fails, loses answers, is slow, dies: nothing is lost, stored twice, failed or slowed.

Requests come at a fixed rate all the time (open loop), in turns with the fault and without it. Afterwards the rows are
the requests, and the rollup says what the table says. Latencies with and without the fault are of the same run.
"""

import random
import threading
import time

from load import Load, mix, percentile
from processes import Gateway, until
from store import finish, wait_for_rows

#: No request waits for ClickHouse: one that did would take as long as the fault. Nothing finer is asserted of times.
BOUND_MS = 2000


class Phases:
    """When the fault was on and when it was off, on the load generator's clock."""

    def __init__(self):
        self.spans = {"up": [], "fault": []}

    def last(self, kind, seconds):
        began = time.monotonic()
        time.sleep(seconds)
        self.spans[kind].append((began, time.monotonic()))

    def latencies(self, load, kind):
        return sorted(ms for span in self.spans[kind] for ms in load.latencies(*span))


def run(stage, report, short):
    rate, turns, seconds = (150, 1, 3.0) if short else (400, 3, 10.0)
    outage = 8.0 if short else 60.0

    def case(name, turns, fault, body):
        """Runs load while `body` works the fault; `body` gets the phases."""
        gateway = Gateway(stage, f"ch-{name}", stage.clickhouse_url).start()
        phases = Phases()
        load = Load(gateway.address, mix(gateway.key), connections=8, rate=rate).start()
        for _ in range(turns):
            body(phases, gateway)
        load.stop()
        figures(report, stage, gateway, load, phases, name, fault)

    def down_at_boot(phases, gateway):
        phases.last("fault", seconds)
        report.equal("boot: /readyz while ClickHouse is down", gateway.ready(), 200)
        stage.start_clickhouse()
        until("the first rows arrive", lambda: gateway.records("ship", "stored") > 0, 60)
        phases.last("up", seconds)

    case("boot", 1, "down at the gateway's start", down_at_boot)

    def outage_(phases, _):
        phases.last("up", seconds)
        stage.clickhouse.kill()
        phases.last("fault", outage)
        stage.start_clickhouse()
        phases.last("up", seconds)

    case("down", 1, f"down for {outage:.0f} s", outage_)

    def ordered(on, off):
        def body(phases, gateway):
            match = {"match": gateway.database}
            phases.last("up", seconds)
            stage.clickhouse.fault(**on, **match)
            phases.last("fault", seconds)
            stage.clickhouse.fault(**off, **match)
        return body

    many = 1 << 30
    case("errors", turns, "every insert answered 500", ordered({"error": many, "code": 241}, {"error": 0}))
    case("lost-ack", turns, "inserts stored, their answers lost", ordered({"lose_ack": many}, {"lose_ack": 0}))
    case("slow", turns, "5 s an insert", ordered({"slow": 5.0}, {"slow": 0}))

    def killed(phases, _):
        phases.last("up", seconds)
        with Killer(stage, 2 if short else 5) as killer:
            while killer.busy():
                phases.last("fault", 0.25)
        report.check(killer.kills > 0, "killed: no insert was met")

    case("killed", turns, "killed in the middle of inserts", killed)
    report.note(f"{rate} requests a second, open loop; p50 and p99 in ms at the client, in turns up / with the fault")


class Killer:
    """Kills ClickHouse as an insert comes in, and starts it again on the same data, several times."""

    def __init__(self, stage, times):
        self.stage, self.times, self.kills, self.error = stage, times, 0, None
        self.random = random.Random(7)
        self.thread = threading.Thread(target=self.work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        if self.error:
            raise self.error

    def busy(self):
        return self.thread.is_alive()

    def work(self):
        try:
            for _ in range(self.times):
                server = self.stage.clickhouse
                before = server.stats()["inserts"]
                until("an insert comes", lambda: server.stats()["inserts"] > before, 60, 0.005)
                # Somewhere between its beginning and just after its end.
                time.sleep(self.random.uniform(0, 0.03))
                server.kill()
                self.kills += 1
                self.stage.start_clickhouse()
        except Exception as error:
            self.error = error


def figures(report, stage, gateway, load, phases, name, fault):
    wait_for_rows(stage.clickhouse, gateway.database, load.sent)
    attempts = gateway.records("ship", "failed_attempt")
    lost = gateway.records("spool", "lost")
    counts = finish(report, gateway, stage.clickhouse, name)
    up, down = phases.latencies(load, "up"), phases.latencies(load, "fault")
    p99_up, p99_down = percentile(up, 0.99), percentile(down, 0.99)
    report.row(
        fault=fault, requests=load.sent, complete=len(load.complete), failed=load.failed, **counts.cells(), lost=lost,
        attempts_failed=attempts, p50_up=percentile(up, 0.5), p50_fault=percentile(down, 0.5), p99_up=p99_up,
        p99_fault=p99_down, p99_ratio=p99_down / p99_up if p99_up else 0.0, max_fault=down[-1] if down else 0.0,
    )
    report.equal(f"{name}: failed requests", load.failed, 0)
    report.equal(f"{name}: rows", counts.rows, load.sent)
    report.equal(f"{name}: lost", lost, 0)
    report.check(attempts > 0 or name == "slow", f"{name}: the fault met no insert")
    slowest = down[-1] if down else 0.0
    # The engine's start takes all the processor there is, several times over in that case: that is no waiting.
    report.check(slowest < BOUND_MS or name == "killed", f"{name}: a request took {slowest:.0f} ms")
