"""A TCP proxy that holds requests back, cuts answers, drops connections, or stops reading."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

VERBS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"
LATER = b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Wire:
    """Stands before a server; what it does to each connection can be set at any time.

    Attributes
    ----------
    hold : float
        Seconds that each request is held back, from its first line on; what follows isn't again.
    cut_after : int or None
        Bytes of an answer after which the connection is closed.
    down : bool
        Whether connections are closed as soon as they are made.
    stalled : bool
        Whether nothing is read from anyone any more.
    answer : bytes or None
        What is answered in the server's place, to every request.
    connections, requests : int
        How many there were; a request is counted by its first line, also one that waits.
    faults : int
        Connections that were closed or cut, and requests that were not the server's to answer.
    answered_bytes : int
        Of answers, heads included.
    """

    def __init__(self, server: str, address: str = "127.0.0.1"):
        parts = urlsplit(server)
        self._to = (parts.hostname, parts.port)
        self.well()
        self.connections = self.requests = self.answered_bytes = self.faults = 0
        self._listener = socket.create_server((address, 0))
        self.url = f"http://{address}:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def well(self) -> None:
        """Do nothing to connections any more."""
        self.hold, self.cut_after, self.down, self.stalled, self.answer = (
            0.0,
            None,
            False,
            False,
            None,
        )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Close all connections."""
        for one in list(self._open):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.down:
                self.faults += 1
                near.close()
                continue
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(one)
            for pump in (self._requests, self._answers):
                threading.Thread(target=pump, args=(near, far), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        try:
            answered = False
            while data := near.recv(2**18):
                begins = data.startswith(VERBS)
                self.requests += begins
                self._wait()
                if self.down:
                    break
                if self.answer is not None or answered:
                    # the server never sees what follows of a request that it saw no beginning of
                    answered = True
                    self.faults += begins
                    if begins:
                        near.sendall(self.answer or LATER)
                    continue
                if self.hold and begins:
                    time.sleep(self.hold)
                far.sendall(data)
        except OSError:
            pass
        finally:
            self._end(near, far)

    def _answers(self, near: socket.socket, far: socket.socket) -> None:
        n_bytes = 0
        try:
            while data := far.recv(2**18):
                self._wait()
                cut_after = self.cut_after
                if cut_after is not None:
                    data = data[: max(0, cut_after - n_bytes)]
                n_bytes += len(data)
                self.answered_bytes += len(data)
                near.sendall(data)
                if cut_after is not None and n_bytes >= cut_after:
                    self.faults += 1
                    break
        except OSError:
            pass
        finally:
            self._end(near, far)

    def _wait(self) -> None:
        while self.stalled:
            time.sleep(0.01)

    def _end(self, *ends: socket.socket) -> None:
        for one in ends:
            self._open.discard(one)
            _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
