// Streams that break: they raise, whatever they were of, and hold what came before.

import assert from "node:assert/strict";

import { OpenAI, client, device, messages, rejected } from "./common.mjs";

const openai = client();

async function* chats(call) {
  const chunks = await openai.chat.completions.create({ ...call, messages });
  for await (const chunk of chunks) yield chunk.choices[0].delta.content;
}

async function* completions(call) {
  const chunks = await openai.completions.create({ ...call, prompt: "Good" });
  for await (const chunk of chunks) yield chunk.choices[0].text;
}

async function* responses(call) {
  const events = await openai.responses.create({ ...call, input: "Good", store: false });
  for await (const event of events) {
    assert.notEqual(event.type, "response.completed");
    if (event.type === "response.output_text.delta") yield event.delta;
    if (event.type === "response.failed") {
      throw new OpenAI.APIError(undefined, undefined, event.response.error.message, undefined);
    }
  }
}

for (const read of [chats, completions, responses]) {
  for (const scenario of ["cut", "ends", "error"]) {
    const texts = [];
    const reading = (async () => {
      for await (const text of read({ model: device, stream: true, user: scenario })) texts.push(text);
    })();
    const error = await rejected(OpenAI.APIError, reading);
    assert.match(error.message, /broke off|no memory/);
    assert.deepEqual(texts, ["one ", "two"], `${read.name} ${scenario}`);
  }
}

const half = openai.chat.completions.create({ model: device, messages, user: "cut" });
assert.equal((await rejected(OpenAI.InternalServerError, half)).status, 502);
