"""Every page of the docs and the README runs as written, in a folder of its own.

The blocks of a page run in their order: `python` blocks in one namespace, `bash` blocks with the
`grandbatch` of this tree. A comment before a block says what is special about it:
`<!-- not run: why -->`, or `<!-- fails: words of the error -->`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import grandbatch as gb

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*DOCS.rglob("*.md")])
RUNNABLE = ("python", "bash")
SHOWN = ("text", "json", "yaml")
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|fails): (?P<words>.+?) -->\n)?"
    r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SMALLER = {"README.md": [("--rows 200000", "--rows 10000"), ("50_000", "10_000")]}
"""What the README shows at its true size is run on less."""

SLOW = {
    "README.md",
    "docs/evaluation.md",
    "docs/howto/cluster.md",
    "docs/howto/columns.md",
    "docs/howto/growing.md",
    "docs/howto/s3.md",
    "docs/howto/supervised.md",
    "docs/howto/timeframes.md",
    "docs/reference/commands.md",
    "docs/training.md",
    "docs/tutorial.md",
}
SAYS = {
    "README.md": "[1024, 48, 13]",
    "docs/evaluation.md": "at the 5% level",
    "docs/howto/supervised.md": "'steps': 51",
    "docs/howto/timeframes.md": "after the last bar the team holds",
    "docs/serving.md": "'actions': {'mlmi'",
    "docs/training.md": "torch.Size([64, 16, 1])",
    "docs/tutorial.md": "CAN'T BE TOLD FROM RANDOM at the 5% level",
}
"""What the Python of a page prints, among other things."""

WARNS = {"docs/howto/supervised.md"}
"""Pages whose libraries (Lightning) warn of what they do themselves."""

NEEDS = {
    "docs/serving.md": ("onnxscript",),
    "docs/training.md": ("pettingzoo",),
    "docs/howto/supervised.md": ("accelerate", "lightning"),
    "docs/loader.md": ("torchdata",),
    "docs/howto/s3.md": ("moto.server", "s3fs", "upath"),
}


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    code: str
    mark: str | None
    words: str | None


def blocks_of(page):
    text = (ROOT / page).read_text()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(line, match["language"], match["code"], match["mark"], match["words"])


def runs(block):
    return block.language in RUNNABLE and block.mark != "not run"


PAGES_THAT_RUN = [page for page in ["README.md", *PAGES] if any(map(runs, blocks_of(page)))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, with the commands that the pages call on the path."""
    tools, work = tmp_path / "bin", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    for name, arguments in (("grandbatch", "-m grandbatch"), ("python", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def bucket(request, folder, monkeypatch):
    """Give the page about S3 a server that has what it reads."""
    if request.node.callspec.params["page"] != "docs/howto/s3.md":
        yield
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("my-bucket")
    gb.create_large_dataset_simulation("elsewhere.csv", num_rows=5_000)
    system.put("elsewhere.csv", "my-bucket/bars/2020.csv")
    yield
    server.stop()


def run_bash(block, code, where):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False
    )
    if block.mark == "fails":
        assert done.returncode != 0, where
        assert block.words in done.stderr, where
    else:
        assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def parameters():
    for page in PAGES_THAT_RUN:
        marks = [pytest.mark.slow] if page in SLOW else []
        if page in WARNS:
            marks.append(pytest.mark.filterwarnings("ignore"))
        yield pytest.param(page, marks=marks)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # torch's own
    "ignore:'set_vital' is deprecated:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
)
@pytest.mark.parametrize("page", [*parameters()])
def test_a_page_runs_as_written(page, folder, request, capsys):
    for module in NEEDS.get(page, ()):
        pytest.importorskip(module)
    request.getfixturevalue("bucket")
    scope = {"__name__": "__main__"}
    for block in filter(runs, blocks_of(page)):
        code = block.code
        for shown, run in SMALLER.get(page, ()):
            code = code.replace(shown, run)
        if block.language == "bash":
            run_bash(block, code, f"{page}:{block.line}")
        else:
            # the blank lines make a traceback tell the page's own line numbers
            exec(compile("\n" * (block.line - 1) + code, ROOT / page, "exec"), scope)
    assert SAYS.get(page, "") in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_block_says_what_it_is(page):
    for block in blocks_of(page):
        assert block.language in (*RUNNABLE, *SHOWN), f"{page}:{block.line}"
        if block.language == "python":
            ast.parse(block.code)
        if block.language == "text":
            assert not block.code.startswith(("grandbatch ", "$ ", "python ", "import "))


def test_the_readmes_example_is_about_fifteen_lines():
    (code,) = (block.code for block in blocks_of("README.md") if block.language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_own_columns_and_a_target_make_a_trained_model_in_under_forty_lines():
    *_, program, _ = (block.code for block in blocks_of("docs/howto/columns.md"))
    lines = program.partition("<<'END'\n")[2].partition("\nEND\n")[0].splitlines()
    assert 30 < len([line for line in lines if line.strip()]) < 40


def test_the_reference_has_every_public_name():
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    named = re.findall(r"^::: grandbatch\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted({*gb.__all__, "errors"} - {"__version__"})


def test_every_command_has_its_section_with_an_example():
    import typer.main

    from grandbatch.cli.main import app

    page = (DOCS / "reference" / "commands.md").read_text()
    sections = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for name in typer.main.get_command(app).commands:
        assert f"grandbatch {name}" in sections[name], name


def test_the_format_page_names_every_attribute(make_store):
    page = (DOCS / "format.md").read_text()
    assert all(f"`{name}`" in page for name in make_store().attrs)
