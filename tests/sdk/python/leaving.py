"""Clients that wait no longer: timeouts, closed streams and cancelled calls."""

import asyncio

import openai

from common import DEVICE, MESSAGES, openai_client, rejected, wait_until_open

call = {"model": DEVICE, "messages": MESSAGES}

impatient = openai_client(timeout=2, max_retries=1)
rejected(openai.APITimeoutError, lambda: impatient.chat.completions.create(**call))
wait_until_open(0)

stream = openai_client().chat.completions.create(**call, stream=True)
assert next(stream).choices[0].delta.content == "one"
wait_until_open(1)
stream.close()
wait_until_open(0)


async def cancelled(work):
    task = asyncio.create_task(work)
    await asyncio.to_thread(wait_until_open, 1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await asyncio.to_thread(wait_until_open, 0)
    else:
        raise AssertionError("it was not cancelled")


async def main():
    async with openai_client(openai.AsyncOpenAI) as client:
        await cancelled(client.chat.completions.create(**call))

        async def read():
            async for _ in await client.chat.completions.create(**call, stream=True):
                pass

        await cancelled(read())


asyncio.run(main())
