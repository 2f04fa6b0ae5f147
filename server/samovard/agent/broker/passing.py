"""Bodies and answers on their way through the broker: in pieces, as they come.

Knows HTTP. Knows nothing of where a request is sent to, or of what passes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

BODY_TIMEOUT = 300.0  # seconds until the whole body of a request has come
READER_TIMEOUT = 60.0  # seconds until a reader takes a piece


async def pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body of a request. Raise `TimeoutError` if it takes too long as a whole."""
    deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT
    while not request.content.at_eof():
        async with asyncio.timeout_at(deadline):
            piece = await request.content.readany()
        yield piece


async def passed_on(
    request: web.BaseRequest,
    answer: aiohttp.ClientResponse,
    response: web.StreamResponse,
    seen: Callable[[bytes], None] = lambda piece: None,
) -> web.StreamResponse:
    """Send an answer on as a response, and return that; `seen` is called with each piece.

    Raise `ConnectionResetError` if the answer breaks off, or is not read in time.
    """
    response.content_length = answer.content_length
    try:
        await response.prepare(request)
        while piece := await answer.content.readany():
            async with asyncio.timeout(READER_TIMEOUT):
                await response.write(piece)
            seen(piece)
        await response.write_eof()
    except (aiohttp.ClientError, TimeoutError) as error:
        # An answer that began cannot become another: its reader must see that it broke off.
        raise ConnectionResetError("the answer broke off") from error
    return response


def closing(response: web.Response) -> web.Response:
    """Return a refusal, after which nothing that follows its request is read."""
    response.force_close()
    return response
