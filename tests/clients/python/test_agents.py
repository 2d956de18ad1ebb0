"""The OpenAI Agents SDK with its chat completions model."""

import asyncio

import agents
import openai
import pytest

SYSTEM = {"role": "system", "content": "You help customers of Acme."}
FOR_AGENTS = {"role": "system", "content": "You work for Acme."}
ASKED = {"role": "user", "content": "Where is my order?"}


@pytest.fixture
def model_of(gateway):
    # Traces would go to OpenAI.
    agents.set_tracing_disabled(True)

    def model(name):
        client = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.keys["app"], max_retries=0)
        return agents.OpenAIChatCompletionsModel(model=name, openai_client=client)

    return model


def ask(agent):
    return asyncio.run(agents.Runner.run(agent, "Where is my order?"))


def test_prompt_is_named_as_the_model(gateway, model_of):
    result = ask(agents.Agent(name="Support", model=model_of("prompt/support/agent")))
    assert result.final_output
    assert gateway.sent_upstream() == {"model": "mock-model", "messages": [FOR_AGENTS, ASKED]}
    assert result.context_wrapper.usage.output_tokens > 0


def test_prompt_is_named_in_the_settings(gateway, model_of):
    settings = agents.ModelSettings(extra_body={"prompt": {"id": "support/chat"}}, temperature=1)
    ask(agents.Agent(name="Support", model=model_of("mock-model"), model_settings=settings))
    assert gateway.sent_upstream() == {"model": "mock-model", "messages": [SYSTEM, ASKED], "temperature": 1}


def test_instructions_follow_the_prompts_own_where_it_lets_them(gateway, model_of):
    ask(agents.Agent(name="Support", instructions="Be brief.", model=model_of("prompt/support/agent")))
    instructions = {"role": "system", "content": "Be brief."}
    assert gateway.sent_upstream()["messages"] == [FOR_AGENTS, instructions, ASKED]


def test_instructions_are_refused_where_it_does_not(model_of):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(agents.Agent(name="Support", instructions="Be brief.", model=model_of("prompt/support/chat")))
    assert caught.value.code == "caller_system_message"


def test_tool_is_called_and_its_result_goes_back(gateway, model_of, prompt_of):
    """First the model calls the tool; then a version is live whose model answers."""
    content = {"messages": [{"placeholder": "history"}]}
    prompt = prompt_of({**content, "model": "mock-model?tool-call"}, {**content, "model": "mock-model"})

    @agents.function_tool
    def find_order() -> str:
        """Finds the customer's order."""
        gateway.deploy(prompt, 2)
        return "It is on its way."

    result = ask(agents.Agent(name="Support", tools=[find_order], model=model_of(f"prompt/{prompt}")))
    assert result.final_output
    sent = gateway.sent_upstream()
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][2]["content"] == "It is on its way."
    assert sent["tools"][0]["function"]["name"] == "find_order"
    assert [record["finish_reason"] for record in gateway.exchanges(prompt, 2)] == ["tool_calls", "stop"]


def test_saved_tools_outlast_an_agent_without_tools(gateway, model_of):
    settings = agents.ModelSettings(extra_body={"prompt": {"id": "support/weather", "variables": {"question": "Rain?"}}})
    agent = agents.Agent(name="Weather", model=model_of("any"), model_settings=settings)
    # The agent has no such tool, which the SDK says; what matters is that the model was given the saved one.
    with pytest.raises(agents.exceptions.ModelBehaviorError, match="saved_weather"):
        ask(agent)
    assert [tool["function"]["name"] for tool in gateway.sent_upstream()["tools"]] == ["saved_weather"]


def test_streamed_run_has_the_deltas_and_the_usage(gateway, model_of):
    agent = agents.Agent(
        name="Support",
        model=model_of("prompt/support/agent"),
        model_settings=agents.ModelSettings(include_usage=True),
    )

    async def run():
        result = agents.Runner.run_streamed(agent, "Where is my order?")
        deltas = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return result, deltas

    result, deltas = asyncio.run(run())
    assert "".join(deltas) == result.final_output
    assert result.context_wrapper.usage.output_tokens > 0
