"""Runs command lines in forked children, which can be struck at any instant.

`CrashServer` starts this file as a process of its own. That imports everything once, so that a
child costs a fork and not the imports. It reads a JSON list of requests a line, runs them side by
side, and answers with a list of what became of each. A request has the `argv` of the command line,
and may have `strike` (the fields of a `Saboteur`) or `kill_after` (seconds until SIGKILL).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabotage import Saboteur, sabotaged

import grandbatch as gb

_HELPERS = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What became of a child: its exit code (negative: the signal), and what it printed."""

    code: int
    seconds: float
    changes: int | None
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object that the command printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class CrashServer:
    """Starts the server, and asks it to run command lines; `modules` are imported once, too."""

    def __init__(self, *modules: str):
        self.modules = modules

    def __enter__(self) -> CrashServer:
        package = Path(gb.__file__).parents[1]
        paths = [str(_HELPERS), str(package), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", __file__, *self.modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def run(self, argv: list[str], **how: Any) -> Outcome:
        """Run one command line."""
        return self.run_all([{"argv": argv, **how}])[0]

    def run_all(self, requests: list[dict[str, Any]]) -> list[Outcome]:
        """Run command lines side by side."""
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        return [Outcome(**answer) for answer in json.loads(self._process.stdout.readline())]


class Child:
    """A forked child that runs one request."""

    def __init__(self, request: dict[str, Any]):
        self.request = request
        self.out, self.err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 (`end`)
        self.listen, answers = os.pipe()
        self.began = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            run_request(request, self.out.fileno(), self.err.fileno(), answers)
        os.close(answers)

    def end(self) -> dict[str, Any]:
        if "kill_after" in self.request:
            time.sleep(max(0.0, self.request["kill_after"] + self.began - time.perf_counter()))
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        seconds = time.perf_counter() - self.began
        counted = os.read(self.listen, 100)
        os.close(self.listen)
        self.out.seek(0)
        self.err.seek(0)
        with self.out, self.err:
            return {
                "code": os.waitstatus_to_exitcode(status),
                "seconds": seconds,
                "changes": int(counted) if counted else None,
                "out": self.out.read().decode(),
                "err": self.err.read().decode(),
            }


def run_request(request: dict[str, Any], out: int, err: int, answers: int) -> None:
    """Run the command line in this forked process, and leave without going back."""
    from grandbatch.cli import main

    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = ["grandbatch", *request["argv"]]
    code = 70
    saboteur = Saboteur(**request.get("strike", {}))
    try:
        with sabotaged(saboteur):
            main()
    except SystemExit as error:
        code = int(error.code or 0)
    except Exception:  # noqa: BLE001 (as the interpreter does at its end)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(answers, str(saboteur.count).encode())
        os._exit(code)


def warm_up(folder: Path) -> None:
    """Import and compile what a build needs, without a thread that a fork would miss."""
    from simulated import write_bars
    from typer.main import get_command

    from grandbatch.cli.main import app

    for name in sys.argv[1:]:
        importlib.import_module(name)
    get_command(app)
    source = write_bars(folder / "warm.csv", 200)
    for engine in ("overlap", "direct"):
        gb.build_store(source, folder / engine, scheduler="sync", engine=engine, overlap=47)


def serve() -> None:
    """Answer requests until the input ends."""
    with tempfile.TemporaryDirectory() as scratch:
        warm_up(Path(scratch))
    print("ready", flush=True)
    for line in sys.stdin:
        children = [Child(request) for request in json.loads(line)]
        print(json.dumps([child.end() for child in children]), flush=True)


if __name__ == "__main__":
    serve()
