// Tool calls, whole and streamed, their answers, and an image: to a backend that a test plays.

import assert from "node:assert/strict";

import { client, device } from "./common.mjs";

const chat = client().chat.completions;
const parameters = {
  type: "object",
  properties: { city: { type: "string", description: "auch „Köln“" } },
  required: ["city"],
};
const call = {
  model: device,
  messages: [{ role: "user", content: "How is the weather in München and الرياض?" }],
  tools: [{ type: "function", function: { name: "weather", strict: true, parameters } }],
  tool_choice: { type: "function", function: { name: "weather" } },
  parallel_tool_calls: true,
};
const wanted = ['{"city": "München"}', '{"city":"الرياض"}'];

const { message } = (await chat.create(call)).choices[0];
assert.equal(message.content, null);
assert.deepEqual(message.tool_calls.map((one) => one.function.arguments), wanted);

const streaming = { stream: true, stream_options: { include_usage: true } };
const response = await chat.create({ ...call, ...streaming }).asResponse();
// The test compares it with what it sent.
process.stdout.write(Buffer.from(await response.arrayBuffer()));

const [texts, names, reasons] = [["", ""], ["", ""], []];
for await (const chunk of await chat.create({ ...call, stream: true })) {
  for (const choice of chunk.choices) {
    for (const delta of choice.delta.tool_calls ?? []) {
      texts[delta.index] += delta.function.arguments;
      names[delta.index] += delta.function.name ?? "";
    }
    reasons.push(choice.finish_reason);
  }
}
assert.deepEqual(texts, wanted);
assert.deepEqual(names, ["weather", "weather"]);
assert.equal(reasons.at(-1), "tool_calls");

const url = `data:image/png;base64,${"iVBORw0KGgo".repeat(30_000)}`;
const answers = message.tool_calls.map(({ id }) => ({
  role: "tool",
  tool_call_id: id,
  content: '{"°C": 21.50}',
}));
const picture = {
  role: "user",
  content: [
    { type: "text", text: "And here?" },
    { type: "image_url", image_url: { url, detail: "low" } },
  ],
};
const history = [...call.messages, message, ...answers, picture];
const completion = await chat.create({ ...call, messages: history });
assert.equal(completion.choices[0].message.content, "Good morning");
