// Chats and completions with a real model: whole, streamed, with usage, with a schema, with tools.

import assert from "node:assert/strict";

import { OpenAI, all, client, messages, rejected, textOf } from "./common.mjs";

const openai = client();
const chat = openai.chat.completions;
const short = { model: "assistant", messages, max_tokens: 8, temperature: 0 };

const { data: whole, response, request_id } = await chat.create(short).withResponse();
assert.equal(response.headers.get("x-lexgate-deployment"), "smollm2@laptop");
assert.ok(whole.choices[0].message.content);
assert.ok(whole.usage.completion_tokens > 0);
assert.ok(request_id, "the SDK finds x-request-id");

let chunks = await all(await chat.create({ ...short, stream: true }));
assert.ok(textOf(chunks));
assert.ok(!chunks.some((chunk) => chunk.usage), "nobody asked for usage");

const asking = { stream: true, stream_options: { include_usage: true } };
chunks = await all(await chat.create({ ...short, ...asking, metadata: { lexgate_subjects: "DE" } }));
assert.ok(chunks.at(-1).usage.completion_tokens > 0);

const runner = chat.stream(short);
let text = "";
runner.on("content", (delta) => (text += delta));
const final = await runner.finalChatCompletion();
assert.equal(final.choices[0].message.content, text);
assert.ok(text && final.choices[0].finish_reason);

const schema = {
  type: "object",
  properties: { city: { type: "string", enum: ["Berlin", "Riyadh"] } },
  required: ["city"],
  additionalProperties: false,
};
const answer = await chat.create({
  ...short,
  max_tokens: 48,
  response_format: { type: "json_schema", json_schema: { name: "place", schema, strict: true } },
});
assert.match(JSON.parse(answer.choices[0].message.content).city, /^(Berlin|Riyadh)$/);

// A model this small calls no tool. That llama.cpp reads them shows in what it says of a bad choice.
const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];
assert.ok((await chat.create({ ...short, tools })).choices[0].message.content);
const sideways = chat.create({ ...short, tools, tool_choice: "sideways" });
assert.match((await rejected(OpenAI.BadRequestError, sideways)).message, /sideways/);

const prompt = { model: "assistant", prompt: "Good", max_tokens: 4, temperature: 0 };
const completion = await openai.completions.create(prompt);
assert.ok(completion.choices[0].text);
assert.ok(completion.usage.completion_tokens <= 4);
const pieces = await all(await openai.completions.create({ ...prompt, stream: true }));
assert.ok(pieces.map((piece) => piece.choices[0]?.text ?? "").join(""));
