"""What the gateway of the client tests has: configuration, prompts, keys."""


def configuration(mock_url):
    return f"""
        [server]
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        drain = "5s"
        [telemetry]
        seal_after = "100ms"

        [[providers]]
        name = "mock"
        kind = "openai"
        base_url = "{mock_url}/v1"
        [[providers]]
        name = "impatient"
        kind = "openai"
        base_url = "{mock_url}/v1"
        timeouts.first_byte = "200ms"
        # Nobody listens on port 1.
        [[providers]]
        name = "unreachable"
        kind = "openai"
        base_url = "http://127.0.0.1:1/v1"

        [[models]]
        name = "mock-model"
        targets = [{{ provider = "mock" }}]
        # With the mock's controls: mock-model?status=500
        [[models]]
        name = "mock-model?*"
        targets = [{{ provider = "mock" }}]
        [[models]]
        name = "late-model"
        targets = [{{ provider = "impatient", model = "mock-model?latency=30s" }}]
        [[models]]
        name = "unreachable-model"
        targets = [{{ provider = "unreachable" }}]
    """


def _tool(name):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "Weather now", "parameters": parameters}}


_QUESTION = {"question": {"type": "string", "maxLength": 200}}
_EVERYWHERE = {"production": 1}

PROMPTS = {
    # The one of the recipes.
    "support/greet": {
        "versions": [
            {
                "messages": [
                    {"role": "system", "content": "You are {{ company }}'s assistant."},
                    {"role": "user", "content": "{{ question }}"},
                ],
                "variables": {"company": {"type": "string", "default": "Acme"}, **_QUESTION},
                "model": "mock-model",
                "parameters": {"temperature": 0.2, "max_tokens": 40},
            },
            {
                "messages": [{"role": "user", "content": "In one word: {{ question }}"}],
                "variables": _QUESTION,
                "model": "mock-model",
            },
        ],
        "live": {"production": 1, "staging": 2},
    },
    # A conversation; the caller says which model.
    "support/chat": {
        "versions": [
            {
                "messages": [{"role": "system", "content": "You help customers of Acme."}, {"placeholder": "history"}],
                "parameters": {"temperature": 0.2},
                "overrides": ["temperature"],
            }
        ],
        "live": _EVERYWHERE,
    },
    # For frameworks that have instructions of their own.
    "support/agent": {
        "versions": [
            {
                "messages": [{"role": "system", "content": "You work for Acme."}],
                "model": "mock-model",
                "caller_system": "allow",
            }
        ],
        "live": _EVERYWHERE,
    },
    # The version has a tool, which callers may replace; the model calls the first one it is given.
    "support/weather": {
        "versions": [
            {
                "messages": [{"role": "user", "content": "{{ question }}"}],
                "variables": _QUESTION,
                "model": "mock-model?tool-call",
                "tools": [_tool("saved_weather")],
                "overrides": ["tools"],
            }
        ],
        "live": _EVERYWHERE,
    },
    "support/draft": {
        "versions": [{"messages": [{"role": "user", "content": "Hello"}], "model": "mock-model"}],
        "live": {},
    },
}

KEYS = {
    "app": {"environment": "production", "environments": ["production", "staging"]},
    # May use what is live, and nothing else.
    "narrow": {"environment": "production", "raw": False, "pin": False},
}
