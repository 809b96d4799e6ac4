// The list of models, and one of them.

import assert from "node:assert/strict";

import { OpenAI, all, client, rejected } from "./common.mjs";

const { models } = client();
const ids = (await all(models.list())).map(({ id }) => id);
assert.ok(ids.includes("assistant") && ids.includes("smollm2-135m"), String(ids));
const { id, owned_by, object } = await models.retrieve("assistant");
assert.deepEqual([id, owned_by, object], ["assistant", "lexgate", "model"]);
assert.equal((await models.retrieve("smollm2@laptop")).id, "smollm2@laptop");
const unknown = await rejected(OpenAI.NotFoundError, models.retrieve("gpt-9"));
assert.equal(unknown.code, "model_not_found");
await rejected(OpenAI.AuthenticationError, client({ apiKey: "wrong" }).models.list());
