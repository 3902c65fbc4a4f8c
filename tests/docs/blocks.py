"""The fenced blocks of a page, what is to become of each, and a shell in which a page is run from top to bottom.

    python tests/docs/blocks.py [PAGE...]    lists the blocks that are not run, and why; of the pages named, or of all
    python tests/docs/blocks.py --run PAGE   runs a page, all that it says, in a new folder, and shows what was said

A comment before a block says what becomes of it, where it is not simply run:

    <!-- not run: why -->                     nothing; it is only parsed
    <!-- run by: tests/…/test_….py -->        a test of its own runs it
    <!-- run where: lightning -->             it is run where that package is installed, here or in .venv-peers
    <!-- ends with: 3 -->                     it is run, and its last command has this exit code
    <!-- tested with: A, for: B -->           it is run with A in the place of B: less of the same; \\n begins a line

A block with a title (```yaml title="job.yaml") is the file of that name. What follows a block of commands as ```text is
what they said, shortened: each of its lines begins with a word that they did say.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "console")
CHECKED = (*SHELLS, "python", "yaml", "json")
TIMEOUT_S = 800
# where pages serve, each of which gets a free port in its place
PORTS = ("8501", "8502")
MARKS = ("not run", "run by", "run where", "ends with", "tested with")
# where a line begins that goes on with one above
CONTINUED = 16 * " "
# what goes when its issue is done
LEFT_OUT = re.compile(r"docs/roadmap-\w+\.md")

_FENCE = re.compile(r"^( *)```+ *([\w+-]*)(.*)$")
_MARK = re.compile(rf"<!-- ({'|'.join(MARKS)}): (.+?) -->")
_TITLE = re.compile(r'title="([^"]+)"')
_LESS = re.compile(r"(.+), for: (.+)")
_COMMAND = re.compile(r"^(\$ |thrifty |make |python |pip |curl |git )")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: it stands in, from the root of the repository.
        line: of its fence, from 1.
        language: of it, empty where none is said.
        title: the file that it is, empty for none.
        text: in it.
        marks: what comments before it say, by their first words.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_checked(self) -> bool:
        """Whether it has to be run, or to say why not."""
        return self.language in CHECKED

    @property
    def is_unnamed_command(self) -> bool:
        """Whether it looks like commands, and does not say so."""
        return self.language in ("", "text") and bool(_COMMAND.match(self.text))

    @property
    def is_output(self) -> bool:
        return self.language == "text"

    @property
    def is_file(self) -> bool:
        return bool(self.title)

    @property
    def is_run(self) -> bool:
        """Whether running its page runs it."""
        if self.language not in (*SHELLS, "python") or self.is_file or self.marks.keys() & {"not run", "run by"}:
            return False
        return self.interpreter is not None

    @cached_property
    def interpreter(self) -> Path | None:
        """Python that has the package which the block asks for; None where there is none."""
        package = self.marks.get("run where")
        if package is None or find_spec(package) is not None:
            return Path(sys.executable)
        peers = ROOT / ".venv-peers" / "bin" / "python"
        found = peers.is_file() and next((peers.parents[1] / "lib").glob(f"python*/site-packages/{package}"), None)
        return peers if found else None

    @property
    def commands(self) -> str:
        """Of a block for a shell, what a person types."""
        if self.language != "console":
            return self.text
        lines = self.text.splitlines(keepends=True)
        return "".join(line.removeprefix("$ ") for line in lines if line.startswith("$ "))

    @property
    def tested(self) -> str:
        """What is run, with less of the same where a comment says so."""
        text = self.commands
        if less := self.marks.get("tested with"):
            found = _LESS.fullmatch(less)
            assert found is not None and found[2] in text, f"{self.place}: tested with {less}: that is not in it"
            text = text.replace(found[2], found[1].replace(r"\n", "\n"))
        return text


def pages() -> list[str]:
    """The READMEs and the pages of the documents, from the root of the repository."""
    found = [*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")]
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return [name for name in names if not LEFT_OUT.fullmatch(name)]


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """Find the blocks of a page, in their order."""
    lines = ((ROOT / page).read_text(encoding="utf-8") if text is None else text).splitlines()
    found, marks, at = [], {}, 0
    while at < len(lines):
        line = lines[at]
        if mark := _MARK.fullmatch(line.strip()):
            marks[mark[1]] = mark[2]
        elif fence := _FENCE.match(line):
            indent, end = len(fence[1]), at + 1
            while end < len(lines) and lines[end].strip() != "```":
                end += 1
            assert end < len(lines), f"{page}:{at + 1} is not closed"
            inside = "".join(each[indent:] + "\n" for each in lines[at + 1 : end])
            title = _TITLE.search(fence[3])
            found.append(Block(page, at + 1, fence[2], title[1] if title else "", inside, marks))
            marks, at = {}, end
        elif line.strip():
            marks = {}
        at += 1
    return found


@dataclass(frozen=True)
class Said:
    """What a block that was run said on its standard output and beside it."""

    block: Block
    out: str
    errors: str


class PageError(AssertionError):
    """A block of a page failed."""


_SHIM = '''#!{python} -IS
"""Have a copy of a process that has imported the package be what was asked for; what serves begins by itself."""
import json, os, signal, socket, sys

asked = sys.argv[1:]
if not sys.argv[0].endswith("/as-copy"):
    asked = ["-m", "thrifty", *asked]
if asked[2:3] in (["serve"], ["ui"]) or "THRIFTY_TEST_COPIES" not in os.environ:
    os.execv({python!r}, [{python!r}, *asked])
copier = socket.socket(fileno=int(os.environ["THRIFTY_TEST_COPIES"]))
status, end = os.pipe()
message = {{"arguments": asked, "cwd": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(copier, [json.dumps(message).encode()], [1, 2, end])
copier.detach()
os.close(end)
pid = int.from_bytes(os.read(status, 4), "little", signed=True)
for each in (signal.SIGTERM, signal.SIGINT):
    signal.signal(each, lambda number, frame: os.kill(pid, number))
code = int.from_bytes(os.read(status, 4) or b"\\1\\0\\0\\0", "little", signed=True)
sys.exit(code if code >= 0 else 128 - code)
'''

_SESSION = """
end() { local each; for each in $(jobs -p); do kill "$each" 2>/dev/null || true; done; wait; }
trap end EXIT
set -o pipefail
"""


def run_page(
    blocks: list[Block],
    folder: Path,
    copier: socket.socket | None = None,
    *,
    whole: bool = False,
    most_s: float = TIMEOUT_S,
) -> list[Said]:
    """Run the blocks of a page one after the other in one shell, in a folder where a clone's ``examples`` are.

    What they start in the background ends with the shell.

    Args:
        blocks: of one page.
        folder: to work in.
        copier: of `forked`: then `thrifty`, and Python of blocks, is copied from a process that has imported it.
        whole: run all that the page says, whatever it is tested with.
        most_s: that it may take.

    Raises:
        PageError: a block ended otherwise than it says; with what it said.
    """
    kept = folder / ".page"
    kept.mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("data", "__pycache__"))
    ports = dict(zip(PORTS, map(str, _free_ports(len(PORTS))), strict=True))
    script, wanted = [_SESSION], []
    for number, block in enumerate(blocks):
        text = block.commands if whole else block.tested
        text = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[1]], text)
        if block.is_file:
            (kept / f"{number}.file").write_text(text, encoding="utf-8")
            script.append(f'mkdir -p "$(dirname {block.title})" && cp {kept}/{number}.file {block.title}\n')
        elif block.is_run:
            wanted.append((number, block))
            script.append(_step(number, block, text, kept, copied=copier is not None))
    tools = _tools(kept)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100"}
    handed: tuple[int, ...] = ()
    if copier is not None:
        handed = (copier.fileno(),)
        environment["THRIFTY_TEST_COPIES"] = str(copier.fileno())
    command = ["bash", "-c", "".join(script)]
    with subprocess.Popen(command, cwd=folder, env=environment, pass_fds=handed, start_new_session=True) as shell:
        try:
            code = shell.wait(most_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(shell)
    said = []
    for number, block in wanted:
        out, errors = (kept / f"{number}.out", kept / f"{number}.err")
        if not out.exists():
            break
        said.append(Said(block, out.read_text(errors="replace"), errors.read_text(errors="replace")))
    if code:
        assert said, f"{blocks[0].page} ended with {code} before its first block"
        last = said[-1]
        how = f"took longer than {most_s} s" if code < 0 else f"ended with {code}"
        raise PageError(f"{last.block.place} {how}:\n{last.block.tested}\n{last.out[-3000:]}\n{last.errors[-3000:]}")
    return said


def _step(number: int, block: Block, text: str, kept: Path, *, copied: bool) -> str:
    """Of the shell's script, what runs a block: it stops there unless the block ends as it says."""
    out = f">{kept}/{number}.out 2>{kept}/{number}.err"
    code = block.marks.get("ends with", "0")
    if block.language == "python":
        file = kept.parent / f"block{number}.py"
        file.write_text(text, encoding="utf-8")
        python = "as-copy" if copied and "run where" not in block.marks else block.interpreter
        run = f"{python} {file.name} {out}"
    else:
        file = kept / f"{number}.sh"
        if "run where" in block.marks:
            text = f'python() {{ {block.interpreter} "$@"; }}\n{text}\nunset -f python\n'
        # a code that is asked for is of the last command: none before it is to end the block
        file.write_text(text if code != "0" else f"set -e\n{text}", encoding="utf-8")
        run = f"source {file} {out}; code=$?; set +e; (exit $code)"
        if code == "0":
            return f"source {file} {out}\nset +e\n"
    return (
        f'{run}\n[ $? = {code} ] || {{ echo "it ended otherwise than with {code}" >>{kept}/{number}.err; exit 1; }}\n'
    )


def _tools(kept: Path) -> Path:
    tools = kept / "bin"
    tools.mkdir()
    for name in ("thrifty", "as-copy"):
        (tools / name).write_text(_SHIM.format(python=sys.executable))
        (tools / name).chmod(0o755)
    return tools


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _end(shell: subprocess.Popen[bytes]) -> None:
    """End whatever of a shell's own session is left."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(shell.pid, number)
            shell.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def begin_words(text: str) -> list[str]:
    """The first word of each line of what is shown of an output.

    Lines that stand for what was left out have none, nor have those that are far indented: they go on with one above.

    >>> begin_words("the bill\\n  stage   time\\n…\\n  3.1 s\\n                    and so on")
    ['the', 'stage']
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("…") and not line.startswith(CONTINUED)]
    words = (re.search(r"[A-Za-z]{3,}", line) for line in lines)
    return [word[0] for word in words if word]


def reasons(of: list[str]) -> list[str]:
    """A line for each block that its page does not run, or not whole, and why."""
    return [
        f"{block.place} {mark}: {why}"
        for page in of
        for block in blocks_of(page)
        for mark, why in block.marks.items()
        if block.is_checked
    ]


def main() -> None:
    """List what is not run, or run a page."""
    if sys.argv[1:2] != ["--run"]:
        print("\n".join(reasons(sys.argv[1:] or pages())))
        return
    folder = Path(tempfile.mkdtemp(prefix="page-"))
    for said in run_page(blocks_of(sys.argv[2]), folder, whole=True, most_s=3600):
        print(f"===== {said.block.place}\n{said.block.commands}----- said\n{said.out}----- beside\n{said.errors}")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"===== {spent.ru_utime + spent.ru_stime:.0f} s of the processors, in {folder}")


if __name__ == "__main__":
    main()
