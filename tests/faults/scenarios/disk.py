"""The spool's disk: full, at its cap, torn tail, flipped bits, folder deleted, read-only. Counted, logged, never a crash.

What is asked for each time: every request is answered, and rows + records counted as lost or damaged = requests.
"""

import os
import shutil
import struct
import subprocess
import time

from load import Load, chat, mix, request
from processes import Failed, Gateway, Skipped, until
from store import finish, wait_for_rows

HEADER_BYTES, FRAME_HEAD_BYTES = 4096, 12
NOBODY = 65534
#: Small, since records without content, which is left out from 80 % on, take long to fill anything.
DISK_MIB, CAP_MIB = 10, 4
FEW = 200


def run(stage, report, short):
    stage.start_clickhouse()
    count, took = 200 if short else 4000, []
    for case in (full_disk, full_cap, full_reject, torn_tail, flipped_bits, deleted, read_only, read_only_start):
        name = case.__name__.replace("_", " ")
        began = time.monotonic()
        try:
            case(stage, report, name, count)
        except Skipped as why:
            report.skip(name, str(why))
        except Failed as error:
            report.check(False, f"{name}: {error}")
        finally:
            stage.clickhouse.fault(down=False)
            took.append(f"{name} {time.monotonic() - began:.0f} s")
    report.note("took: " + ", ".join(took))


def send(gateway, requests, count, connections=16):
    load = Load(gateway.address, requests, connections=connections, count=count)
    return load.start().wait(300)


def judge(stage, report, name, gateway, loads, expect_log, extra=()):
    """Waits for the rows; checks that everything is a row or counted, and that the log says why."""
    sent, complete = sum(load.sent for load in loads), sum(len(load.complete) for load in loads)
    lost = gateway.records("spool", "lost")
    until(
        f"{name}: rows and counted records make up the requests",
        lambda: stored(stage, gateway) + gateway.records("spool", "damaged") + lost >= sent - sum(extra), 60, 0.2)
    damaged = gateway.records("spool", "damaged")
    counts = finish(report, gateway, stage.clickhouse, name)
    line = (gateway.log_line(expect_log) or "") if expect_log else "nothing to say"
    shed = int(stage.clickhouse.sql("SELECT countIf(capture = 'shed') FROM exchanges", gateway.database))
    report.row(
        case=name, requests=sent, complete=complete, **counts.cells(), lost_counted=lost, damaged_counted=damaged,
        gone_with_the_file=sum(extra), without_bodies=shed)
    report.note(f"{name}: {line.replace(str(stage.folder), '…')[:180]}")
    report.equal(f"{name}: requests without an answer", sent - complete, 0)
    report.equal(f"{name}: rows + counted", counts.rows + lost + damaged + sum(extra), sent)
    report.check(line, f"{name}: the log does not say {expect_log!r}")
    return counts, lost, damaged


def stored(stage, gateway):
    return int(stage.clickhouse.sql("SELECT count() FROM exchanges", gateway.database)) if has_table(stage, gateway) else 0


def has_table(stage, gateway):
    return stage.clickhouse.sql(f"EXISTS TABLE {gateway.database}.exchanges") == "1"


def begin(stage, name, **settings):
    """A gateway that has made its tables already."""
    gateway = Gateway(stage, name, stage.clickhouse_url, **settings).start()
    first = send(gateway, mix(gateway.key), 4, 1)
    until("its tables are there", lambda: gateway.log_line("clickhouse is ready"))
    return gateway, first


# --- Cases -----------------------------------------------------------------------------------------------------------


def tmpfs(stage, name, mib):
    """A small file system of its own."""
    if os.geteuid() != 0:
        raise Skipped("only root may mount a tmpfs")
    folder = stage.folder / f"tmpfs-{name}"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        raise Skipped(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    stage.undo.callback(subprocess.run, ["umount", "-l", folder])
    return folder


def fill(stage, gateway, loads):
    """Takes ClickHouse down, and sends until records are dropped. Small records: content is left out long before."""
    stage.clickhouse.fault(down=True)
    bodies = [request(gateway.key, chat("mock-model", False, "x" * 20_000))]
    deadline = time.monotonic() + 240
    while gateway.records("spool", "lost") == 0:
        loads.append(send(gateway, bodies, 200))
        if time.monotonic() > deadline:
            raise Failed("the spool did not fill up")


def empty_again(stage, gateway, loads):
    """Brings ClickHouse back, and sends a little until there is room: that a file can be made again, a record finds out."""
    stage.clickhouse.fault(down=False)

    def has_room():
        loads.append(send(gateway, mix(gateway.key), 4, 2))
        return gateway.metric("promptgate_spool_level") == 0 and gateway.metric("promptgate_spool_bytes") < 1 << 20

    until("there is room again", has_room, 120, 0.5)


def drops(stage, report, name, gateway, first, count):
    """Full, and more requests; then empty, and more requests."""
    loads = [first]
    fill(stage, gateway, loads)
    loads.append(send(gateway, mix(gateway.key), count))
    report.equal(f"{name}: /readyz", gateway.ready(), 200)
    report.check(gateway.metric("promptgate_spool_level") > 0, f"{name}: promptgate_spool_level is 0")
    dropped, lost = gateway.records("spool", "dropped_full"), gateway.records("spool", "lost")
    # On a disk some may also be lost to a write that fails, before the room is measured again.
    report.check(0 < dropped <= lost, f"{name}: {dropped} dropped because it is full, {lost} lost")
    empty_again(stage, gateway, loads)

    def records():
        before = gateway.records("spool", "lost")
        loads.append(send(gateway, mix(gateway.key), 64))
        return gateway.records("spool", "lost") == before

    # Each worker looks again within a second.
    until("all records are kept again", records, 10, 0.2)
    lost = gateway.records("spool", "lost")
    # Not so many that they fill it again before they are shipped.
    loads.append(send(gateway, mix(gateway.key), FEW))
    report.equal(f"{name}: lost once there is room again", gateway.records("spool", "lost") - lost, 0)
    shed = gateway.records("spool", "shed")
    report.check(shed > 0, f"{name}: no content was left out from 80 % on")
    judge(stage, report, name, gateway, loads, "the spool is full")


def full_disk(stage, report, name, count):
    """A small file system fills while ClickHouse is down, and empties afterwards."""
    folder = tmpfs(stage, "full", DISK_MIB)
    gateway, first = begin(stage, "full_disk", spool=folder / "spool")
    drops(stage, report, name, gateway, first, count)


def full_cap(stage, report, name, count):
    """`spool_max_bytes` is reached, `when_full = "drop"`."""
    gateway, first = begin(stage, "full_cap", telemetry=f'spool_max_bytes = "{CAP_MIB}MiB"\nwhen_full = "drop"')
    drops(stage, report, name, gateway, first, count)


def full_reject(stage, report, name, count):
    """`spool_max_bytes` is reached, `when_full = "reject"`: refused before anything is forwarded."""
    settings = f'spool_max_bytes = "{CAP_MIB}MiB"\nwhen_full = "reject"'
    gateway, first = begin(stage, "full_reject", telemetry=settings)
    before = stage.mock.stats()["requests"] - first.sent
    loads = [first]
    stage.clickhouse.fault(down=True)
    bodies = [request(gateway.key, chat("mock-model", False, "x" * 20_000))]
    deadline = time.monotonic() + 240
    while not any(load.statuses[503] for load in loads) and gateway.records("spool", "lost") == 0:
        loads.append(send(gateway, bodies, 200))
        if time.monotonic() > deadline:
            raise Failed("the spool did not fill up")
    loads.append(send(gateway, mix(gateway.key), count))
    forwarded = stage.mock.stats()["requests"] - before
    report.equal(f"{name}: lost", gateway.records("spool", "lost"), 0)
    report.equal(f"{name}: forwarded to the provider", forwarded, sum(len(load.complete) for load in loads))
    report.equal(f"{name}: /readyz", gateway.ready(), 200)
    empty_again(stage, gateway, loads)

    def admits():
        loads.append(send(gateway, mix(gateway.key), 64))
        return not loads[-1].statuses[503]

    # Each worker looks again within a second.
    until("all requests are admitted again", admits, 10, 0.2)
    loads.append(send(gateway, mix(gateway.key), FEW))
    report.equal(f"{name}: refused once there is room again", loads[-1].statuses[503], 0)
    sent = sum(load.sent for load in loads)
    answered, refused = sum(len(load.complete) for load in loads), sum(load.statuses[503] for load in loads)
    wait_for_rows(stage.clickhouse, gateway.database, answered, 60)
    lost = gateway.records("spool", "lost")
    counts = finish(report, gateway, stage.clickhouse, name)
    aggregated = int(stage.clickhouse.sql(
        "SELECT sum(requests) FROM refusals WHERE error_code = 'recording_full'", gateway.database))
    shed = int(stage.clickhouse.sql("SELECT countIf(capture = 'shed') FROM exchanges", gateway.database))
    report.row(case=name, requests=sent, complete=answered, **counts.cells(), lost_counted=lost, without_bodies=shed,
               refused_503=refused, in_refusals=aggregated)
    report.check(refused > 0, f"{name}: nothing was refused")
    report.equal(f"{name}: lost", lost, 0)
    report.equal(f"{name}: answered or refused", answered + refused, sent)
    report.equal(f"{name}: rows of answered requests", counts.rows, answered)
    report.equal(f"{name}: refused requests counted in refusals", aggregated, refused)


def frames(bytes_):
    """Offsets and ends of the frames of a segment."""
    at = HEADER_BYTES
    while at + FRAME_HEAD_BYTES <= len(bytes_) and bytes_[at + 8]:
        end = at + FRAME_HEAD_BYTES + struct.unpack_from("<I", bytes_, at)[0]
        if end > len(bytes_):
            return
        yield at, end
        at = end


def torn_tail(stage, report, name, count):
    """`kill -9`, and the last frame of each open segment is only half there."""
    gateway, first = begin(stage, "torn", seal_after="120s")
    load = send(gateway, mix(gateway.key), count)
    gateway.process.kill()
    torn = 0
    for path in gateway.segments():
        found = list(frames(path.read_bytes()))
        if found:
            begins, ends = found[-1]
            os.truncate(path, (begins + ends) // 2)
            torn += 1
    report.check(torn > 0, f"{name}: there was no open segment")
    gateway.start()
    judge(stage, report, name, gateway, [first, load], "", extra=[torn])


def flipped_bits(stage, report, name, count):
    """One bit is flipped in the middle of a sealed segment while the gateway is stopped."""
    gateway, first = begin(stage, "flipped")
    stage.clickhouse.fault(down=True)
    load = send(gateway, mix(gateway.key), count)
    report.equal(f"{name}: exit code of the first stop", gateway.stop(), 0)
    paths = [path for path in gateway.segments() if len(list(frames(path.read_bytes()))) > 2]
    report.check(paths, f"{name}: there was no sealed segment")
    for path in paths[:1]:
        found = list(frames(path.read_bytes()))
        begins, ends = found[len(found) // 2]
        with path.open("r+b") as file:
            file.seek((begins + ends) // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))
    stage.clickhouse.fault(down=False)
    gateway.start()
    _, lost, damaged = judge(stage, report, name, gateway, [first, load], "records are missing from a sealed segment")
    report.equal(f"{name}: damaged records, counted", (lost, damaged), (0, 1))


def deleted(stage, report, name, count):
    """The whole spool folder is deleted under a running gateway, while ClickHouse is down."""
    gateway, first = begin(stage, "deleted")
    stage.clickhouse.fault(down=True)
    loads = [first, send(gateway, mix(gateway.key), count)]
    shutil.rmtree(gateway.spool)
    loads.append(send(gateway, mix(gateway.key), count))
    stage.clickhouse.fault(down=False)
    until("recording goes on", lambda: heals(stage, gateway, loads), 60, 0.3)
    judge(stage, report, name, gateway, loads, "records are missing from a sealed segment")


def heals(stage, gateway, loads):
    """Sends a few more, and says whether all of them have become rows."""
    before = gateway.records("ship", "stored")
    load = send(gateway, mix(gateway.key), 8)
    loads.append(load)
    try:
        return until("they are stored", lambda: gateway.records("ship", "stored") >= before + load.sent, 5)
    except Failed:
        return False


def as_nobody(stage, name):
    """Settings for a gateway that permissions bind: root's ignores them."""
    if os.geteuid() != 0:
        return {}
    if not shutil.which("setpriv"):
        raise Skipped("permissions do not bind root, and there is no setpriv to become somebody else")
    return {"prefix": ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]}


def hand_over(gateway):
    """Lets the gateway's user write in its folder."""
    if os.geteuid() == 0:
        for path in (gateway.folder, gateway.config):
            os.chown(path, NOBODY, NOBODY)


def folders(spool):
    return [spool, *(path for path in spool.iterdir() if path.is_dir())]


def read_only(stage, report, name, count):
    """The spool's folders become read-only under a running gateway, and writable again."""
    gateway = Gateway(stage, "readonly", stage.clickhouse_url, **as_nobody(stage, "readonly"))
    hand_over(gateway)
    gateway.start()
    loads = [send(gateway, mix(gateway.key), 4, 1)]
    wait_for_rows(stage.clickhouse, gateway.database, 4)
    for folder in folders(gateway.spool):
        folder.chmod(0o500)
    # The open segments are still good; the next ones cannot be begun.
    until("nothing can be recorded", lambda: loads.append(send(gateway, mix(gateway.key), 50)) or
          gateway.records("spool", "lost") > 0, 60, 0.2)
    loads.append(send(gateway, mix(gateway.key), count))
    report.equal(f"{name}: /readyz", gateway.ready(), 200)
    for folder in folders(gateway.spool):
        folder.chmod(0o700)
    until("recording goes on", lambda: heals(stage, gateway, loads), 60, 0.3)
    judge(stage, report, name, gateway, loads, "Permission denied")


def read_only_start(stage, report, name, count):
    """A gateway that cannot write its spool does not start, and says why."""
    gateway = Gateway(stage, "cannot_start", stage.clickhouse_url, **as_nobody(stage, "cannot_start"))
    hand_over(gateway)
    gateway.spool.mkdir(mode=0o500)
    if os.geteuid() == 0:
        os.chown(gateway.spool, NOBODY, NOBODY)
    code = gateway.spawn().ended(30)
    said = " ".join(gateway.process.log().split())
    report.note(f"{name}: exit code {code}: {said.replace(str(stage.folder), '…')[-180:]}")
    report.equal(f"{name}: exit code", code, 1)
    report.check(str(gateway.spool) in said, f"{name}: the message does not name the folder")
