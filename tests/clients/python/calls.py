"""What a developer writes with a client that openapi-python-client generated: a decision, an explanation, a
chat and an audit query."""

import datetime
import os

from lexgate_client import AuthenticatedClient
from lexgate_client.api.audit import list_records
from lexgate_client.api.decisions import decide, explain
from lexgate_client.api.gateway import create_chat_completion
from lexgate_client.models import (
    Action,
    CallRequest,
    ChatMessage,
    ChatRequest,
    DataRequest,
    InstrumentChange,
    ListRecordsKind,
    Problem,
    Verdict,
)


def client(key):
    return AuthenticatedClient(base_url=os.environ["LEXGATE_URL"], token=os.environ[key])


caller, auditor = client("LEXGATE_KEY"), client("LEXGATE_AUDITOR_KEY")

plain = CallRequest(action=Action.INFER, model="assistant", data=DataRequest(personal=False))
decided = decide.sync(client=caller, body=plain)
assert decided.decision is Verdict.ALLOW, decided
assert decided.route.deployment == "smollm2@laptop", decided

pinned = CallRequest(
    action=Action.INFER,
    deployment="qwen3-32b@dashscope-sg",
    data=DataRequest(
        personal=True, categories=["dpv-pd:Health"], subjects=["DE"], subject_count=1
    ),
    purpose="dpv:ServiceProvision",
)
explained = explain.sync(client=caller, body=pinned)
assert explained.decision is Verdict.DENY, explained
assert explained.route is None, explained
changes = [change for one in explained.would_pass for way in one.ways for change in way.changes]
assert any(isinstance(one, InstrumentChange) and one.exporter == "acme" for one in changes), changes

message = ChatMessage(role="user", content="Good morning")
asked = ChatRequest(model="assistant", messages=[message])
asked["max_tokens"] = 8
answered = create_chat_completion.sync_detailed(
    client=caller, body=asked, x_lexgate_personal=False
)
assert answered.status_code == 200, answered
assert isinstance(answered.parsed.choices[0].message.content, str), answered
assert answered.parsed.usage.completion_tokens > 0, answered

unknown = decide.sync(
    client=caller, body=CallRequest(action=Action.INFER, model="gpt-9", data=DataRequest(personal=False))
)
assert isinstance(unknown, Problem), unknown
assert (unknown.status, unknown.errors[0].pointer) == (422, "/model"), unknown

page = list_records.sync(
    client=auditor,
    kind=ListRecordsKind.DECISION,
    from_=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    limit=10,
)
found = next(one for one in page.records if one.seq == decided.record.seq)
assert (found.entry.id, found.leaf) == (decided.id, decided.record.leaf), found
assert found.entry.body["decision"] == "allow", found

badly = list_records.sync(client=auditor, limit=0)
assert isinstance(badly, Problem) and badly.errors[0].parameter == "limit", badly
