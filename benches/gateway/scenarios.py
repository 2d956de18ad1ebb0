"""What is compared with what: groups of subjects that are driven with the same requests and answers."""

from dataclasses import dataclass

from . import prompts

NAMES = {
    "plain": "plain answers",
    "burst": f"streams, {prompts.EVENTS} events at once",
    "paced": f"streams, {prompts.EVENTS} events 2 ms apart",
}


@dataclass
class Subject:
    """One row of a table: a process and the request it gets."""

    name: str
    process: object
    path: str
    body: str


@dataclass
class Group:
    """One table. The first subject is the one that the others are compared with."""

    name: str
    title: str
    events: int
    subjects: list


def groups(bench, only):
    return [group(bench, name) for name in NAMES if not only or name in only]


def group(bench, mode):
    raw = prompts.without_prompt(mode, bench.off)
    prompt = prompts.with_prompt(mode)
    streams = mode != "plain"
    path = "/v1/chat/completions"
    subjects = [
        Subject("nginx proxy_pass", bench.nginx, "/stream" + path if streams else path, raw),
        Subject("raw, recording off", bench.off, path, raw),
        Subject("prompt, recording off", bench.off, path, prompt),
        Subject("prompt, SQLite", bench.sqlite, path, prompt),
    ]
    if mode == "plain":
        with_logic = Subject("  with a condition in it", bench.off, path, prompts.with_prompt("logic"))
        subjects.insert(3, with_logic)
    if bench.older_off:
        subjects += [
            Subject("older: raw, off", bench.older_off, path, raw),
            Subject("older: prompt, off", bench.older_off, path, prompt),
            Subject("older: prompt, SQLite", bench.older_sqlite, path, prompt),
        ]
    return Group(mode, NAMES[mode], prompts.EVENTS if streams else 0, subjects)
