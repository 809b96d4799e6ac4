"""The asynchronous client with a real model: several chats at once, whole and streamed."""

import asyncio

import openai

from common import MESSAGES, SINGAPORE, openai_client, text_of

short = {"model": "assistant", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}


async def main():
    async with openai_client(openai.AsyncOpenAI) as client:
        chat = client.chat.completions

        async def whole():
            return (await chat.create(**short)).choices[0].message.content

        async def streamed():
            return text_of([chunk async for chunk in await chat.create(**short, stream=True)])

        texts = await asyncio.gather(whole(), streamed(), whole(), streamed())
        assert all(texts), texts
        try:
            await chat.create(model=SINGAPORE, messages=MESSAGES)
        except openai.PermissionDeniedError as denied:
            assert denied.code == "eu-gdpr-44", denied.body
        else:
            raise AssertionError("no PermissionDeniedError")
        assert [model.id async for model in client.models.list()]


asyncio.run(main())
