"""A TCP proxy that breaks connections as networks do: slow, silent, reset, or deaf in one direction."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

from streams.local.processes import free_port

Direction = Literal["to_server", "to_client"]
_BOTH: tuple[Direction, ...] = ("to_server", "to_client")
_CHUNK = 65_536
#: How often a pipe that lets nothing pass looks whether it may again.
_LOOK_S = 0.05


class Proxy:
    """
    Listens on a port of 127.0.0.1 and passes bytes on to another one; its loop runs in a thread of its own.

    Attributes
    ----------
    delay_s
        Each chunk waits so long.
    bytes_per_s
        Each direction of a connection carries no more; 0 is no limit.
    cut
        Directions in which nothing passes: bytes are held, connections stay open.

    """

    def __init__(self, server_port: int, port: int | None = None) -> None:
        self.server_port = server_port
        self.port = port or free_port()
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.cut: frozenset[Direction] = frozenset()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def black_hole(self) -> None:
        """Let nothing pass in either direction; nobody is told."""
        self.cut = frozenset(_BOTH)

    def heal(self) -> None:
        """Pass everything on again, what was held included."""
        self.delay_s, self.bytes_per_s, self.cut = 0.0, 0, frozenset()

    def reset(self) -> None:
        """End every open connection with RST, as a firewall that lost its table does."""
        self._call(self._reset())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _end(self) -> None:
        self._server.close()
        await self._reset()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in list(self._writers):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(
                self._pipe(reader, server_writer, "to_server"), self._pipe(server_reader, writer, "to_client")
            )
        finally:
            self._writers -= {writer, server_writer}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            while chunk := await reader.read(_CHUNK):
                await asyncio.sleep(self.delay_s + (len(chunk) / self.bytes_per_s if self.bytes_per_s else 0))
                while direction in self.cut:  # noqa: ASYNC110 -- set from another thread, looked at in tests only
                    await asyncio.sleep(_LOOK_S)
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._pipes.discard(task)
            writer.close()
