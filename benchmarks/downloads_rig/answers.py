"""How a host answers one request: at once, never, byte by byte, with another host's address."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable

STATUS_WORDS = {200: "OK", 302: "Found", 404: "Not Found", 429: "Slow Down", 503: "Busy"}


@dataclasses.dataclass
class Request:
    """One request, and the connection to answer it."""

    host: str  # the address that was asked
    target: str  # path and query as they were sent
    number: int  # how often the target was asked for before in this run
    keeps_alive: bool  # whether the connection may carry another request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send_head(self, status: int, num_bytes: int | None, **headers: str) -> None:
        """Send all that precedes the body; `num_bytes` is None when its length is open."""
        self.keeps_alive = self.keeps_alive and num_bytes is not None
        lines = [f"HTTP/1.1 {status} {STATUS_WORDS.get(status, 'Other')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if num_bytes is not None:
            lines.append(f"Content-Length: {num_bytes}")
        lines.append(f"Connection: {'keep-alive' if self.keeps_alive else 'close'}\r\n\r\n")
        await self.send("\r\n".join(lines).encode())

    async def send(self, data: bytes) -> None:
        """Send bytes, at the pace at which they are taken."""
        self.writer.write(data)
        await self.writer.drain()


Answer = Callable[[Request], Awaitable[None]]


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Answer with a body; header names are written with underscores."""
    headers = {"Content_Type": "image/jpeg", **headers}

    async def answer(request: Request) -> None:
        await request.send_head(status, len(body), **headers)
        await request.send(body)

    return answer


def send_pieces(pieces: Callable[[], Iterable[bytes]], num_bytes: int) -> Answer:
    """Answer with a body that is made while it is sent."""

    async def answer(request: Request) -> None:
        await request.send_head(200, num_bytes, Content_Type="image/jpeg")
        for piece in pieces():
            await request.send(piece)

    return answer


def redirect(location: str) -> Answer:
    """Send the client elsewhere."""
    return send(b"", 302, Location=location)


def in_turn(*answers: Answer) -> Answer:
    """Return the first answer to the first request, and so on; the last one from then on."""

    async def answer(request: Request) -> None:
        await answers[min(request.number, len(answers) - 1)](request)

    return answer


def drip(data: bytes, seconds_between: float) -> Answer:
    """Send one byte now and one now and then: no single wait is ever long."""

    async def answer(request: Request) -> None:
        await request.send_head(200, None, Content_Type="image/jpeg")
        for number in range(len(data)):
            await request.send(data[number : number + 1])
            await asyncio.sleep(seconds_between)

    return answer


def endless(start: bytes, bytes_per_second: int) -> Answer:
    """Send until the client has had enough."""

    async def answer(request: Request) -> None:
        await request.send_head(200, None, Content_Type="image/jpeg")
        await request.send(start)
        while True:
            await request.send(bytes(bytes_per_second // 20))
            await asyncio.sleep(0.05)

    return answer


async def hang(request: Request) -> None:
    """Answer nothing for as long as the client waits."""
    request.keeps_alive = False
    await request.reader.read()
