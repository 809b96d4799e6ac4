"""Streams that break: they raise, whatever they were of, and hold what came before."""

import openai

from common import DEVICE, MESSAGES, openai_client

client = openai_client()


class Failed(Exception):
    """A response that says itself that it failed."""

    def __init__(self, event):
        self.message = event.response.error.message
        # It goes on where the last event, of number 1, left off.
        assert event.response.status == "failed" and event.sequence_number == 2, event


def chats(**options):
    for chunk in client.chat.completions.create(messages=MESSAGES, **options):
        yield chunk.choices[0].delta.content


def completions(**options):
    for chunk in client.completions.create(prompt="Good", **options):
        yield chunk.choices[0].text


def responses(**options):
    for event in client.responses.create(input="Good", store=False, **options):
        assert event.type != "response.completed", event
        if event.type == "response.failed":
            raise Failed(event)
        if event.type == "response.output_text.delta":
            yield event.delta


for read in (chats, completions, responses):
    for scenario in ("cut", "ends", "error"):
        texts = []
        try:
            for text in read(model=DEVICE, stream=True, user=scenario):
                texts.append(text)
        except (openai.APIError, Failed) as error:
            assert "broke off" in error.message or "no memory" in error.message, error
        else:
            raise AssertionError(f"{read.__name__} {scenario}: it looks complete")
        assert texts == ["one ", "two"], (read.__name__, scenario, texts)

try:
    client.chat.completions.create(
        model=DEVICE, messages=MESSAGES, user="cut"
    )
except openai.InternalServerError as error:
    assert error.status_code == 502, error
else:
    raise AssertionError("half an answer passed for a whole one")
