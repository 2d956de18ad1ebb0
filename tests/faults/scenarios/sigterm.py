"""SIGTERM under load with open streams: exit 0, nothing unspooled, no stream cut before the deadline.

Streams that end in time are read to their end; those that do not are cut at `server.drain` and recorded as aborted.
"""

import threading
import time

from load import Held, Load, chat, mix, request
from processes import Gateway, until
from store import Counts, ids

DRAIN_SECONDS = 3.0


class Watch:
    """Looks at /readyz and the data plane's listener until the process has ended."""

    def __init__(self, gateway):
        self.gateway, self.unready_after = gateway, None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while self.gateway.process.running():
            if self.gateway.ready() == 503 and self.unready_after is None:
                self.unready_after = time.monotonic() - self.began
            time.sleep(0.005)
        self.ended_after = time.monotonic() - self.began


def run(stage, report, short):
    stage.start_clickhouse()
    for n in range(1, (2 if short else 10) + 1):
        one(stage, report, n, 16 if short else 64)


def one(stage, report, n, width):
    case = f"round {n}"
    gateway = Gateway(stage, f"sigterm-{n}", stage.clickhouse_url, drain=f"{DRAIN_SECONDS:.0f}s").start()
    load = Load(gateway.address, mix(gateway.key, "load"), connections=width).start()
    # 40 events in 1 to 2 s after SIGTERM, and some that no deadline suffices for: silent, or slow.
    ending = [chat(f"mock-model?tokens=40&chunk-interval={30 + i}ms&seed={i}", True) for i in range(8)]
    endless = [chat("mock-model?stall=3", True), chat("mock-model?tokens=2000&chunk-interval=20ms", True)] * 3
    slow = [chat(f"mock-model?latency={700 + 50 * i}ms") for i in range(4)]
    requests = lambda bodies, session: [request(gateway.key, body, session) for body in bodies]
    finishing = Held(gateway.address, requests(ending, "finishing")).start()
    outliving = Held(gateway.address, requests(endless, "outliving")).start()
    until("streams have begun", lambda: len(finishing.open) == 8 and len(outliving.open) == 6)
    waiting = Held(gateway.address, requests(slow, "waiting")).start()
    time.sleep(0.3)
    gateway.process.terminate()
    watch = Watch(gateway)
    code = gateway.process.ended()
    watch.thread.join()
    for part in (load, finishing, outliving, waiting):
        part.stop(10)
    report.equal(f"{case}: exit code", code, 0)
    report.equal(f"{case}: segments left in the spool", len(gateway.segments()), 0)
    report.check(watch.unready_after is not None, f"{case}: /readyz never said 503")
    report.check(watch.ended_after >= DRAIN_SECONDS, f"{case}: ended after {watch.ended_after:.2f} s, before the deadline")
    report.equal(f"{case}: streams that end before the deadline, whole", len(finishing.complete), 8)
    report.equal(f"{case}: slow plain answers, whole", len(waiting.complete), 4)
    report.equal(f"{case}: streams that outlive the deadline, cut", len(outliving.cut), 6)
    # A connection whose request crossed the close: it got no byte, and its client may send it again.
    report.equal(f"{case}: answers of the load cut off", (len(load.cut), len(load.ended_early)), (0, 0))

    counts = Counts(stage.clickhouse, gateway.database)
    stored = ids(stage.clickhouse, gateway.database)
    aborted = set(ids(stage.clickhouse, gateway.database, "outcome = 'aborted'"))
    answered = {*load.complete, *finishing.complete, *waiting.complete}
    lost = len(answered - set(stored))
    sent = load.sent + 8 + 6 + 4
    report.row(
        case=case, requests=sent, complete=len(answered), crossed_the_close=load.unanswered, cut_at_deadline=6,
        **counts.cells(), lost=lost, unready_after_ms=(watch.unready_after or 0) * 1e3, exit_after_s=watch.ended_after,
    )
    report.equal(f"{case}: lost", lost, 0)
    report.equal(f"{case}: duplicates", counts.duplicates, 0)
    report.equal(f"{case}: aborted, by id", aborted, set(outliving.open))
    report.equal(f"{case}: rows", counts.rows, len(answered) + 6)
    report.check(counts.agrees, f"{case}: the rollup does not agree with the table")
