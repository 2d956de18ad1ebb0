// The Vercel AI SDK, with its provider for OpenAI-compatible APIs and with OpenAI's own.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, RetryError, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { apiKey, baseURL, exchange, question, sentUpstream } from "./gateway.mjs";

const compatible = createOpenAICompatible({
  name: "promptgate",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL, apiKey });
const system = { role: "system", content: "You help customers of Acme." };
const asked = { role: "user", content: "Where is my order?" };
const prompt = asked.content;

for (const [name, provider] of [
  ["openai-compatible", (model) => compatible(model)],
  ["openai", (model) => openai.chat(model)],
]) {
  test(`${name}: prompt named as the model is applied`, async () => {
    const { text, usage, finishReason, response } = await generateText({
      model: provider("prompt/support/agent"),
      prompt,
    });
    assert.ok(text);
    assert.equal(finishReason, "stop");
    assert.ok(usage.outputTokens > 0);
    const sent = await sentUpstream();
    assert.equal(sent.model, "mock-model");
    assert.deepEqual(sent.messages, [{ role: "system", content: "You work for Acme." }, asked]);
    const record = await exchange(response.headers["x-request-id"]);
    assert.equal(record.prompt_id, "support/agent");
    assert.equal(record.output_tokens, usage.outputTokens);
  });

  test(`${name}: prompt named by headers is applied`, async () => {
    const headers = {
      "x-promptgate-prompt": "support/greet",
      "x-promptgate-variables": JSON.stringify(question),
    };
    await generateText({ model: provider("any"), prompt: "It was due yesterday.", headers });
    const roles = (await sentUpstream()).messages.map((message) => message.role);
    assert.deepEqual(roles, ["system", "user", "user"]);
  });

  test(`${name}: streamed text is the whole text, with usage`, async () => {
    const model = provider("prompt/support/agent");
    const whole = await generateText({ model, prompt });
    const result = streamText({ model, prompt });
    const parts = [];
    for await (const part of result.textStream) parts.push(part);
    assert.equal(parts.join(""), whole.text);
    assert.ok(parts.length > 5);
    assert.equal(await result.finishReason, "stop");
    assert.equal((await result.usage).outputTokens, whole.usage.outputTokens);
  });

  test(`${name}: refusal is typed`, async () => {
    const call = generateText({ model: provider("prompt/support/nobody"), prompt, maxRetries: 0 });
    await assert.rejects(call, (error) => {
      assert.ok(APICallError.isInstance(error), error);
      assert.equal(error.statusCode, 404);
      assert.equal(error.isRetryable, false);
      assert.match(error.message, /there is no prompt "support\/nobody"/);
      return true;
    });
  });

  test(`${name}: provider's failure is retried`, async () => {
    const call = generateText({ model: provider("mock-model?status=503&retry-after=0"), prompt, maxRetries: 1 });
    await assert.rejects(call, (error) => {
      assert.ok(RetryError.isInstance(error), error);
      assert.equal(error.errors.length, 2);
      assert.ok(error.errors.every((each) => each.statusCode === 503));
      return true;
    });
  });

  test(`${name}: failure inside a stream is an error`, async () => {
    const errors = [];
    const result = streamText({
      model: provider("mock-model?error-in-stream=3"),
      prompt,
      onError: ({ error }) => errors.push(error),
    });
    await result.consumeStream();
    assert.equal(errors.length, 1);
    assert.equal(await result.finishReason.catch(() => "error"), "error");
  });

  test(`${name}: tool is called`, async () => {
    const order = tool({ description: "Finds an order", inputSchema: z.object({}), execute: () => "on its way" });
    const { toolResults } = await generateText({
      model: provider("mock-model?tool-call"),
      prompt,
      tools: { order },
      stopWhen: stepCountIs(1),
    });
    assert.deepEqual(
      toolResults.map((result) => [result.toolName, result.output]),
      [["order", "on its way"]],
    );
  });

  test(`${name}: structured output is parsed`, async () => {
    const text = encodeURIComponent('{"number": 17}');
    const { output } = await generateText({
      model: provider(`mock-model?text=${text}`),
      prompt,
      output: Output.object({ schema: z.object({ number: z.number() }) }),
    });
    assert.deepEqual(output, { number: 17 });
  });
}

test("openai-compatible: prompt named in the provider's options is applied", async () => {
  await generateText({
    model: compatible("mock-model"),
    prompt,
    providerOptions: { promptgate: { prompt: { id: "support/chat" } } },
  });
  assert.deepEqual((await sentUpstream()).messages, [system, asked]);
});
