"""What may be empty, zero or unseen, each with its reason. Everything else must show something."""

#: Targets that may have no rows: {(dashboard, where): reason}.
EMPTY: dict[tuple[str, str], str] = {}

#: Targets (ClickHouse: and their columns) whose values may all be 0.
ZERO = {
    ("gateway", "Records lost / A"): "nothing may be lost here: the test of that name says so",
    ("gateway", "Answers undelivered / A"): "a caller would have to leave just as its answer is handed over",
    ("gateway", "Configuration reloads / A"): "there is no reload yet",
    ("gateway", "Snapshot generation / B"): "one instance is never behind itself",
    ("gateway", "CPU / A"): "the process collector counts whole seconds, and this traffic may cost less than one",
    ("gateway", "CPU per request / A"): "as CPU",
    ("prompts-and-variants", "Most expensive exchanges / A: Cached"): "the mock provider caches nothing",
}

#: Families that are in src/metrics.rs and not yet on /metrics.
NOT_EXPOSED: dict[str, str] = {}

#: Values of labels that no request here has.
UNSEEN_VALUES = {
    ("outcome", "aborted"): "a gateway has to die for it",
}
