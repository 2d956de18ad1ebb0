"""Fixtures of the Python clients: the gateway, and the OpenAI SDK pointed at it."""

import itertools

import openai
import pytest

from gateway import Gateway

QUESTION = {"question": "Where is my order?"}
GREET = {"prompt": {"id": "support/greet", "variables": QUESTION}}
GREETED = [
    {"role": "system", "content": "You are Acme's assistant."},
    {"role": "user", "content": "Where is my order?"},
]


@pytest.fixture(scope="session")
def gateway():
    with Gateway() as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def no_other_addresses(monkeypatch):
    """The SDKs read these too: a test must not depend on who runs it."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.keys["app"], max_retries=0) as client:
        yield client


_numbers = itertools.count(1)


@pytest.fixture
def prompt_of(gateway):
    """Makes a prompt of a test's own: its versions, of which the first is live in production."""

    def make(*versions):
        prompt = f"test/{next(_numbers)}"
        gateway.create(prompt, *versions, live={"production": 1})
        return prompt

    return make
