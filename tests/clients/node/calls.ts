// What a developer writes with a client that openapi-typescript generated: a decision, an explanation, a chat
// and an audit query. It is type-checked before it runs.

import { deepStrictEqual as equal, ok } from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Schemas = components["schemas"];

function as(key: string | undefined) {
    ok(key);
    const headers = { authorization: `Bearer ${key}` };
    return createClient<paths>({ baseUrl: process.env["LEXGATE_URL"] ?? "", headers });
}

const caller = as(process.env["LEXGATE_KEY"]);
const auditor = as(process.env["LEXGATE_AUDITOR_KEY"]);

const plain: Schemas["CallRequest"] = { action: "infer", model: "assistant", data: { personal: false } };
const decided = await caller.POST("/v1/decisions", { body: plain });
ok(decided.data);
const { id, decision, route, record } = decided.data;
equal(decision, "allow");
equal(route?.deployment, "smollm2@laptop");

const pinned: Schemas["CallRequest"] = {
    action: "infer",
    deployment: "qwen3-32b@dashscope-sg",
    data: { personal: true, categories: ["dpv-pd:Health"], subjects: ["DE"], subject_count: 1 },
    purpose: "dpv:ServiceProvision",
};
const explained = await caller.POST("/v1/explain", { body: pinned });
ok(explained.data);
equal(explained.data.decision, "deny");
const changes = explained.data.would_pass.flatMap((one) => one.ways).flatMap((way) => way.changes);
// What tells variants apart narrows them.
const instruments = changes.map((change) => (change.change === "instrument" ? change.exporter : ""));
ok(instruments.includes("acme"), JSON.stringify(changes));

const params = { header: { "x-lexgate-personal": false } };
const chat = await caller.POST("/v1/chat/completions", {
    params,
    body: { model: "assistant", messages: [{ role: "user", content: "Good morning" }], max_tokens: 8 },
});
// A stream would be text.
ok(typeof chat.data === "object", JSON.stringify(chat.error));
equal(typeof chat.data.choices?.[0]?.message?.content, "string");
ok((chat.data.usage?.completion_tokens ?? 0) > 0);
equal(typeof chat.response.headers.get("x-lexgate-decision"), "string");

const unknown = await caller.POST("/v1/decisions", { body: { ...plain, model: "gpt-9" } });
equal(unknown.error?.status, 422);
equal(unknown.error?.errors?.[0]?.pointer, "/model");

const query = { kind: "decision", decision: "allow", from: "2020-01-01T00:00:00Z", limit: 10 } as const;
const page = await auditor.GET("/v1/audit/records", { params: { query } });
ok(page.data);
const found = page.data.records.find((one) => one.seq === record.seq);
equal([found?.entry.id, found?.leaf], [id, record.leaf]);
equal(found?.entry.body["decision"], "allow");

const badly = await auditor.GET("/v1/audit/records", { params: { query: { limit: 0 } } });
equal(badly.error?.errors?.[0]?.parameter, "limit");
