"""Cancelled, stalled, cut and malformed streams, an error inside a 200 stream: one record each, with what came.

Each ending is had several times over raw connections. The records are read from ClickHouse by the session the request
named, so requests that never learn their id are found as well.
"""

import base64
import json
import socket
import threading
import time

from load import chat, request
from processes import Gateway, until
from store import finish, wait_for_rows

#: The text of the provider: three words, each an event, after the one with the role.
TEXT = "one%20two%20three"
SAID = "one two three"


def run(stage, report, short):
    stage.start_clickhouse()
    gateway = Gateway(stage, "streams", stage.clickhouse_url, idle="500ms").start()
    # Another gateway for callers that leave: there a silent provider is not given up first.
    patient = Gateway(stage, "patient", stage.clickhouse_url, idle="60s").start()
    times = 3 if short else 20
    cases = [(gateway, *case) for case in provider_cases()] + [(patient, *case) for case in caller_cases()]
    for serving, name, body, leave, wanted in cases:
        everyone(times, lambda n: send(serving, f"{name}/{n}", body, leave))
    for serving in (gateway, patient):
        wait_for_rows(stage.clickhouse, serving.database, times * sum(1 for case in cases if case[0] is serving), 60)
    for serving, name, body, leave, wanted in cases:
        compare(report, stage, serving, name, times, wanted)
    until("the provider's streams end", lambda: stage.mock.stats()["open_streams"] == 0, 30)
    cancelled = stage.mock.stats()["cancelled"]
    wanted = times * sum(1 for case in cases if case[4].get("cancels"))
    report.note(f"answers cancelled at the provider: {cancelled}, of callers that left and silence that was given up")
    report.equal("answers cancelled at the provider", cancelled, wanted)
    for serving in (gateway, patient):
        counts = finish(report, serving, stage.clickhouse, serving.name)
        wanted = times * sum(1 for case in cases if case[0] is serving)
        report.equal(f"{serving.name}: rows", counts.rows, wanted)


def provider_cases():
    """What the provider does to a stream: name, body, when the caller leaves, and what the record must say."""
    model = f"mock-model?text={TEXT}"
    broken = {"outcome": "upstream_error", "status": 200, "code": "upstream_invalid"}
    return [
        ("whole", chat(f"{model}", True), None, {"outcome": "ok", "status": 200, "code": "", "said": SAID}),
        ("without [DONE]", chat(f"{model}&no-done", True), None,
         {"outcome": "ok", "status": 200, "code": "", "said": SAID}),
        ("cut after 3 words", chat(f"{model}&cut=4", True), None, broken | {"said": SAID}),
        ("cut after the head", chat(f"{model}&cut=body", True), None, broken | {"said": ""}),
        ("cut before the head", chat(f"{model}&cut=head", True), None,
         {"outcome": "upstream_error", "status": 502, "code": "upstream_invalid", "said": ""}),
        ("silent after 3 words", chat(f"{model}&stall=4", True), None,
         {"outcome": "timeout", "status": 200, "code": "upstream_timeout", "said": SAID, "cancels": True}),
        ("silent after the head", chat(f"{model}&stall=body", True), None,
         {"outcome": "timeout", "status": 200, "code": "upstream_timeout", "said": "", "cancels": True}),
        ("malformed third word", chat(f"{model}&malformed=4", True), None, broken | {"said": "one two"}),
        ("error event after 3 words", chat(f"{model}&error-in-stream=4", True), None, broken | {"said": SAID}),
        ("error event at once", chat(f"{model}&error-in-stream=0", True), None, broken | {"said": ""}),
        ("plain answer cut", chat(f"{model}&cut=1"), None, broken | {"status": 502, "said": None}),
        ("plain answer malformed", chat(f"{model}&malformed=1"), None, broken | {"status": 502, "said": None}),
        ("error status 500", chat(f"{model}&status=500", True), None,
         {"outcome": "upstream_error", "status": 500, "code": "", "said": None}),
    ]


def caller_cases():
    """The caller leaves in each phase."""
    model = f"mock-model?text={TEXT}"
    left = {"outcome": "client_disconnected", "code": ""}
    return [
        ("left while uploading", chat(model, True), "upload", left | {"status": 499, "said": None}),
        ("left before the head", chat(f"{model}&latency=60s", True), "sent",
         left | {"status": 499, "cancels": True, "said": None}),
        ("left after 3 words", chat(f"{model}&stall=4", True), b"three",
         left | {"status": 200, "cancels": True, "said": SAID}),
        ("left in a plain answer", chat(f"{model}&stall=1"), "sent", left | {"cancels": True, "said": None}),
        ("left after the last byte", chat(model, True), b"data: [DONE]\n\n",
         {"outcome": "ok", "status": 200, "code": "", "said": SAID}),
    ]


def everyone(times, work):
    threads = [threading.Thread(target=work, args=(n,)) for n in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def send(gateway, session, body, leave):
    """Sends one request; reads to the end, or leaves at the given point."""
    host, port = gateway.address.rsplit(":", 1)
    bytes_ = request(gateway.key, body, session, headers=[("connection", "close")])
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        if leave == "upload":
            connection.sendall(bytes_[:-20])
            time.sleep(0.2)
            return
        connection.sendall(bytes_)
        if leave == "sent":
            time.sleep(0.5)
            return
        received = b""
        while not (leave and leave in received):
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return
            if not piece:
                return
            received += piece


def compare(report, stage, gateway, name, times, wanted):
    columns = "toString(exchange_id), outcome, status_code, error_code, base64Encode(response)"
    text = stage.clickhouse.sql(f"SELECT {columns} FROM exchanges WHERE session LIKE '{name}/%'", gateway.database)
    rows = [line.split("\t") for line in text.split("\n") if line]
    found = lambda column: ",".join(sorted({row[column] for row in rows}))
    said = sorted({content(row[4]) for row in rows})
    report.row(
        case=name, requests=times, rows=len(rows), distinct=len({row[0] for row in rows}), outcome=found(1),
        status=found(2), code=found(3) or "-", content="|".join(said),
    )
    report.equal(f"{name}: rows", (len(rows), len({row[0] for row in rows})), (times, times))
    for what, column in (("outcome", 1), ("status", 2), ("code", 3)):
        if what in wanted:
            report.equal(f"{name}: {what}", found(column), str(wanted[what]))
    if wanted["said"] is not None:
        report.equal(f"{name}: recorded content", said, [wanted["said"]])


def content(encoded):
    """The text that a recorded answer holds."""
    text = base64.b64decode(encoded).decode(errors="replace")
    try:
        message = json.loads(text)
    except json.JSONDecodeError:
        return text[:24]
    if "content" in message:
        return message["content"] or ""
    if "choices" in message:
        return message["choices"][0]["message"]["content"]
    return text[:24]
