"""Anthropic's messages with a real model: whole, streamed, with tools, with the asynchronous client."""

import asyncio

import anthropic

from common import MESSAGES, anthropic_client

client = anthropic_client()
short = {"model": "assistant", "messages": MESSAGES, "max_tokens": 8}

whole = client.messages.with_raw_response.create(**short, system="Be brief.")
assert whole.headers["x-lexgate-deployment"] == "smollm2@laptop", whole.headers
message = whole.parse()
assert message.content[0].text and message.stop_reason in ("end_turn", "max_tokens"), message
assert 0 < message.usage.output_tokens <= 8, message
assert message._request_id, "the SDK finds request-id"

with client.messages.stream(**short, metadata={"lexgate_subjects": "DE"}) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text and final.content[0].text == text, final
assert 0 < final.usage.output_tokens <= 8, final

types = [event.type for event in client.messages.create(**short, stream=True)]
assert (types[0], types[-1]) == ("message_start", "message_stop"), types

tools = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
assert client.messages.create(**short, tools=tools).content


async def main():
    async with anthropic_client(anthropic.AsyncAnthropic) as client:
        message = await client.messages.create(**short)
        assert message.content[0].text
        async with client.messages.stream(**short) as stream:
            assert "".join([text async for text in stream.text_stream])


asyncio.run(main())
