// Embeddings by a real model, and by a backend that has none.

import assert from "node:assert/strict";

import { OpenAI, client, device, frankfurt, rejected } from "./common.mjs";

const { embeddings } = client({ maxRetries: 2 });
const input = ["Good morning", "The parcel arrives on Tuesday"];

// The SDK asks for base64 where nobody says what to ask for, and decodes it.
const packed = await embeddings.create({ model: device, input });
const plain = await embeddings.create({ model: device, input, encoding_format: "float" });
for (const [at, { embedding }] of plain.data.entries()) {
  assert.equal(embedding.length, 576);
  assert.equal(packed.data[at].embedding.length, 576);
  for (const [place, number] of embedding.entries()) {
    assert.ok(Math.abs(number - packed.data[at].embedding[place]) < 1e-5);
  }
}
assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding);
assert.ok(plain.usage.prompt_tokens > 0);
assert.equal((await embeddings.create({ model: "assistant", input: "Hello" })).data.length, 1);

const call = embeddings.create({ model: frankfurt, input: "Hello" });
const unsupported = await rejected(OpenAI.InternalServerError, call);
assert.equal(unsupported.status, 502);
assert.equal(unsupported.code, "upstream_unsupported");
assert.equal(unsupported.headers.get("x-should-retry"), "false");
