"""`kill -9` of the gateway at full load, many times on the same folders: answered means stored, exactly once.

Full load: as many requests as 64 connections get through, on a machine they keep busy. Beside it streams and plain
calls that the provider never ends; those over a second old at the kill have to be there as aborted.
"""

import random
import time

from load import Held, Load, chat, mix, request
from processes import Gateway, until
from store import finish, ids, shipped

CONNECTIONS = 64
#: The gateway notes open calls once a second; older than this they survive.
OLD_SECONDS = 2.5


def run(stage, report, short):
    stage.start_clickhouse()
    for durability, rounds in [("process", 3 if short else 20), ("disk", 1 if short else 5), ("relaxed", 1 if short else 5)]:
        kills(stage, report, durability, rounds)


def kills(stage, report, durability, rounds):
    gateway = Gateway(stage, f"kill-{durability}", stage.clickhouse_url, telemetry=f'durability = "{durability}"')
    pause = random.Random(11)
    complete, old, waiting, in_flight, sent, seconds = [], [], 0, 0, 0, 0.0
    for _ in range(rounds):
        gateway.start()
        requests = lambda model, count, stream: [
            request(gateway.key, chat(f"{model}&seed={n}", stream), "held") for n in range(count)]
        streams = Held(gateway.address, requests("mock-model?stall=4", 8, True)).start()
        heads = Held(gateway.address, requests("mock-model?stall=head", 4, False)).start()
        until("streams have begun", lambda: len(streams.open) == 8)
        aged = time.monotonic() + OLD_SECONDS
        load = Load(gateway.address, mix(gateway.key, "load"), connections=CONNECTIONS).start()
        # At any point of what happens once a second, and not before the held calls are old.
        time.sleep(max(0.0, aged - time.monotonic()) + pause.uniform(0, 1))
        gateway.process.kill()
        for part in (load, streams, heads):
            part.stop(10)
        report.equal("held streams that ended before the kill", len(streams.complete) + len(streams.ended_early), 0)
        complete += load.complete
        old += streams.open
        waiting += len(heads.requests)
        sent += load.sent + len(streams.open) + len(heads.requests)
        seconds += load.took
        # Sent, and not answered whole: recorded or not, depending on how far it got.
        in_flight += load.sent - len(load.complete)
    # The last start ships what is left; one request shows that it serves.
    gateway.start()
    last = Load(gateway.address, mix(gateway.key, "load"), connections=1, count=1).start().wait(30)
    complete += last.complete
    sent += 1
    recovered = gateway.records("spool", "recovered")
    shipped(gateway)
    counts = finish(report, gateway, stage.clickhouse, durability)
    stored = set(ids(stage.clickhouse, gateway.database))
    aborted = set(ids(stage.clickhouse, gateway.database, "outcome = 'aborted'"))
    held = int(stage.clickhouse.sql(
        "SELECT uniqExact(exchange_id) FROM exchanges WHERE outcome = 'aborted' AND session = 'held'", gateway.database))
    lost = len(set(complete) - stored)
    old_found = len(set(old) & aborted)
    report.row(
        durability=durability, kills=rounds, requests=sent, complete=len(complete), in_flight=in_flight, **counts.cells(), lost=lost,
        old_streams=len(old), found_aborted=old_found, old_waiting=waiting, found_too=max(0, held - old_found),
    )
    report.note(f"{durability}: {len(complete) / seconds:.0f} answers a second; {recovered} records recovered at the last start")
    # "relaxed" may lose the last milliseconds: counted, and nothing more is asked of it.
    report.check(lost == 0 or durability == "relaxed", f"{durability}: {lost} answered requests are lost")
    report.equal(f"{durability}: answered requests stored as aborted", len(set(complete) & aborted), 0)
    report.equal(f"{durability}: streams over a second old that are there as aborted", old_found, len(old))
    report.equal(f"{durability}: calls over a second old, without a head, that are there as aborted", held - old_found, waiting)
    least = len(complete) + len(old) + waiting - lost
    report.check(least <= counts.rows <= sent, f"{durability}: {counts.rows} rows of {sent} requests")
