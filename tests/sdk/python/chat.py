"""Chats and completions with a real model: whole, streamed, with usage, with a schema, with tools."""

import json

import openai

from common import MESSAGES, openai_client, rejected, text_of

client = openai_client()
chat = client.chat.completions
short = {"model": "assistant", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}

whole = chat.with_raw_response.create(**short)
assert whole.headers["x-lexgate-deployment"] == "smollm2@laptop", whole.headers
completion = whole.parse()
assert completion.choices[0].message.content
assert completion.usage.completion_tokens > 0
assert completion._request_id, "the SDK finds x-request-id"

chunks = list(chat.create(**short, stream=True))
assert text_of(chunks), chunks
assert not any(chunk.usage for chunk in chunks), "nobody asked for usage"

chunks = list(
    chat.create(
        **short,
        stream=True,
        stream_options={"include_usage": True},
        metadata={"lexgate_subjects": "DE"},
    )
)
assert chunks[-1].usage.completion_tokens > 0, chunks[-1]

with chat.stream(**short) as stream:
    types = {event.type for event in stream}
    final = stream.current_completion_snapshot
assert "content.delta" in types and "content.done" in types, types
assert final.choices[0].message.content and final.choices[0].finish_reason

schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Berlin", "Riyadh"]}},
    "required": ["city"],
    "additionalProperties": False,
}
named = {"name": "place", "schema": schema, "strict": True}
answer = chat.create(
    **short | {"max_tokens": 48},
    response_format={"type": "json_schema", "json_schema": named},
)
assert json.loads(answer.choices[0].message.content)["city"] in ("Berlin", "Riyadh")

# A model this small calls no tool. That llama.cpp reads them shows in what it says of a bad choice.
tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
assert chat.create(**short, tools=tools).choices[0].message.content
refused = rejected(
    openai.BadRequestError,
    lambda: chat.create(**short, tools=tools, tool_choice="sideways"),
)
assert "sideways" in refused.message, refused.body

prompt = {"model": "assistant", "prompt": "Good", "max_tokens": 4, "temperature": 0}
completion = client.completions.create(**prompt)
assert completion.choices[0].text and 0 < completion.usage.completion_tokens <= 4, completion
pieces = list(client.completions.create(**prompt, stream=True))
assert "".join(piece.choices[0].text for piece in pieces if piece.choices), pieces
