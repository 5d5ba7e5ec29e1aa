#!/usr/bin/env python3
"""Runs what a page of the documentation tells its readers to type.

Of blocks marked `sh`, the lines that begin with `kanoclip` are run in turn, in one folder. Of blocks marked
`python`, all are run, in one program. Left out are lines that need a camera, another machine or an end (`--camera`,
`://`, `--serve`), and blocks below a line `<!-- not run: WHY -->`. The folder has `parts/` with images of good and
stained parts, as a reader would have, and `dataset/`, the example photographs with their masks.

Usage: page_blocks.py PAGE...
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

NOT_HERE = re.compile(r"--camera\b|(?<!test)://|--serve\b|\bsudo\b")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
GOOD = 20


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        language: After the fence.
        code: What is between the fences.
        line: Number of its first line in the page.
        left_out: Why it is not run; None where it is.
    """

    language: str
    code: str
    line: int
    left_out: str | None

    def commands(self) -> list[str]:
        """Command lines of ours, continued lines joined, without their comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [shlex.join(words) for one in lines if (words := _words(one)) and words[0].startswith("kanoclip")]


def _words(line: str) -> list[str]:
    """The words of a line of sh up to a pipe or a redirection; none of a line that is no simple command."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return []
    ends = (n for n, word in enumerate(words) if word and set(word) <= set("|&;<>()"))
    return words[: next(ends, len(words))]


def blocks(text: str) -> list[Block]:
    """All blocks of a page that name a language."""
    found = []
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        mark = re.fullmatch(r"<!-- not run: (.+) -->", above)
        found.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, mark[1] if mark else None))
    return found


def runs_here(command: str) -> bool:
    """Whether a command line needs no camera, no other machine, and ends by itself."""
    return NOT_HERE.search(command) is None


def make_parts(folder: Path, images: Path) -> None:
    """Writes parts/good and parts/stain, of the example images; good ones turned too, to have enough. And dataset/.

    Args:
        folder: Where `parts` is made.
        images: The folder `hazelnut_toy`.
    """
    import cv2

    shutil.copytree(images, folder / "dataset")
    good, stain = folder / "parts" / "good", folder / "parts" / "stain"
    good.mkdir(parents=True)
    stain.mkdir()
    originals = sorted((images / "test" / "good").glob("*.jpg")) + sorted((images / "train").rglob("*.jpg"))
    for number in range(GOOD):
        image = cv2.imread(str(originals[number % len(originals)]))
        for _ in range(number // len(originals)):
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        cv2.imwrite(str(good / f"{number:02}.jpg"), image)
    for path in sorted((images / "test" / "colour").glob("*.jpg"))[:6]:
        (stain / path.name).write_bytes(path.read_bytes())


def run_page(page: Path, folder: Path) -> int:
    """Runs a page's blocks in a folder that has `parts`.

    Returns:
        How many commands and programs were run.

    Raises:
        AssertionError: One failed; the message has what it printed.
    """
    done = 0
    program = ""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.left_out is not None:
            continue
        if block.language == "python":
            # Empty lines before it, so that a traceback has the page's own line numbers.
            program += "\n" * (block.line - 1 - program.count("\n")) + block.code
            done += _ran([sys.executable, "-c", program], f"{page.name}:{block.line}", folder)
        elif block.language == "sh":
            for command in filter(runs_here, block.commands()):
                done += _ran(shlex.split(command), f"{page.name}:{block.line}: {command}", folder)
    return done


def _ran(command: list[str], what: str, folder: Path) -> int:
    print(f"-- {what}", flush=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{what} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return 1


def main(pages: list[str]) -> None:
    """Runs each page in a folder of its own."""
    from importlib import resources

    images = Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy")))
    for page in map(Path, pages):
        with tempfile.TemporaryDirectory() as folder:
            make_parts(Path(folder), images)
            count = run_page(page, Path(folder))
        assert count, f"{page} has nothing to run"
        print(f"{page.name}: {count} commands and programs ran")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AssertionError as error:
        sys.exit(str(error))
