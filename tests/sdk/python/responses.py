"""Responses of a real model: whole, streamed, with tools; and what is refused."""

import openai

from common import SINGAPORE, openai_client, rejected

client = openai_client()
short = {"model": "assistant", "input": "Good morning", "max_output_tokens": 8, "temperature": 0}
short |= {"store": False}

response = client.responses.create(**short)
assert response.output_text and response.status, response
assert response.usage.output_tokens > 0, response
assert response._request_id

events = list(client.responses.create(**short, stream=True))
assert events[0].type == "response.created", events[0]
deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
last = events[-1]
assert last.type == "response.completed", last
assert "".join(deltas) == last.response.output[0].content[0].text
assert last.response.usage.output_tokens > 0

tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
assert client.responses.create(**short, tools=[tool]).output

background = rejected(
    openai.BadRequestError, lambda: client.responses.create(**short, background=True)
)
assert background.param == "background", background.body
denied = rejected(
    openai.PermissionDeniedError,
    lambda: client.responses.create(**short | {"model": SINGAPORE}),
)
assert denied.code == "eu-gdpr-44", denied.body
rejected(openai.NotFoundError, lambda: client.responses.retrieve("resp_1"))
