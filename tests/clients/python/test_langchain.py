"""LangChain's ChatOpenAI."""

import asyncio
import json
from urllib.parse import quote

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI

from conftest import GREET, GREETED

SYSTEM = {"role": "system", "content": "You help customers of Acme."}


@pytest.fixture
def chat(gateway):
    def chat(model, **options):
        return ChatOpenAI(
            base_url=gateway.base_url, api_key=gateway.keys["app"], model=model, max_retries=0, **options
        )

    return chat


def test_prompt_is_named_as_the_model(gateway, chat):
    answer = chat("prompt/support/agent").invoke("Where is my order?")
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert gateway.sent_upstream()["messages"][-1] == {"role": "user", "content": "Where is my order?"}


def test_prompt_is_named_in_the_body_and_needs_no_messages(gateway, chat):
    answer = chat("any", extra_body=GREET).invoke([])
    assert answer.content
    sent = gateway.sent_upstream()
    assert (sent["model"], sent["messages"], sent["temperature"]) == ("mock-model", GREETED, 0.2)


def test_prompt_is_named_in_headers_for_one_chain(gateway, chat):
    headers = {
        "x-promptgate-prompt": "support/greet",
        "x-promptgate-variables": json.dumps(GREET["prompt"]["variables"]),
    }
    chat("any").bind(extra_headers=headers).invoke([])
    assert gateway.sent_upstream()["messages"] == GREETED


def test_conversation_goes_into_the_history(gateway, chat):
    history = [HumanMessage("Hello"), AIMessage("Hello! How can I help?"), HumanMessage("Where is it?")]
    chat("mock-model", extra_body={"prompt": {"id": "support/chat"}}).invoke(history)
    sent = gateway.sent_upstream()["messages"]
    assert sent[0] == SYSTEM
    assert [message["content"] for message in sent[1:]] == [message.content for message in history]


def test_stream_is_the_whole_answer_with_its_usage(gateway, chat):
    model = chat("any", extra_body=GREET, stream_usage=True)
    chunks = list(model.stream([]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert len(chunks) > 5
    assert whole.content == model.invoke([]).content
    assert whole.usage_metadata["output_tokens"] > 0


def test_request_id_leads_to_the_record(gateway, chat):
    answer = chat("any", extra_body=GREET, include_response_headers=True).invoke([])
    record = gateway.exchange(answer.response_metadata["headers"]["x-request-id"])
    assert (record["prompt_id"], record["outcome"]) == ("support/greet", "ok")


def test_async_stream_has_the_same_text(chat):
    async def run(model):
        return "".join([chunk.content async for chunk in model.astream([])])

    model = chat("any", extra_body=GREET)
    assert asyncio.run(run(model)) == model.invoke([]).content


def test_bound_tool_is_called(chat):
    def find_order(order: str) -> str:
        """Finds an order."""

    answer = chat("mock-model?tool-call").bind_tools([find_order]).invoke("Find it")
    assert [call["name"] for call in answer.tool_calls] == ["find_order"]


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_is_parsed(chat, method):
    class Order(pydantic.BaseModel):
        number: int

    text = quote('{"number": 17}')
    model = chat(f"mock-model?text={text}", extra_body={"prompt": {"id": "support/chat"}})
    assert model.with_structured_output(Order, method=method).invoke("Which order?") == Order(number=17)


def test_refusal_is_the_sdks_exception(chat):
    with pytest.raises(openai.NotFoundError) as caught:
        chat("prompt/support/nobody").invoke("Hello")
    assert caught.value.code == "prompt_not_found"
