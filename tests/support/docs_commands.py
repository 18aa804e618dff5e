"""Read documents: code blocks with their marks, commands, inline code, links.

A comment on the line above a block says what the tests do with it:

    <!-- run -->               execute it after the blocks before it, in a folder for this document
    <!-- prints -->            the executed block above printed these lines; numbers may differ, "…" is any lines
    <!-- file photos.toml -->  save it under this name in that folder first

Every other command is only parsed.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.files.bundled import CHECKOUT_ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "data/*/README.md", "models/*/README.md")
    for path in CHECKOUT_ROOT.glob(pattern)
)
SHELL = frozenset({"", "bash", "sh", "shell", "console"})
LISTINGS = frozenset({"train.py", "cli", "L", "model.safetensors"})
"""First words of indented blocks that are not commands: trees of files, layers, a formula."""
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,}) *(?P<language>\w*)")
_MARK = re.compile(r"^<!-- (?P<mark>.+) -->$")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_OURS = re.compile(r"^(vdvae-lr|(python|bash|mpiexec|torchrun|srun|sbatch)\b.* (\S*/)?\w+\.(py|sh))\b.")
_OPERATORS = frozenset({"|", "||", "&", "&&", ";"})


@dataclass(frozen=True)
class Block:
    """A code block, fenced or indented by four spaces."""

    document: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        return f"{relative(self.document)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """The words of one command of a shell block, without its comment, redirections and leading assignments."""

    document: Path
    line: int  # 0: inline code
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{relative(self.document)}:{self.line or 'inline'} {' '.join(self.words)}"


def relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT_ROOT))


def read_blocks(document: Path) -> list[Block]:
    """The code blocks of a document, in their order."""
    lines = document.read_text(encoding="utf-8").splitlines()
    blocks: list[Block] = []
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        start, language = number, fence["language"] if fence else ""
        if fence:
            start = number + 1
            end = next(i for i in range(start, len(lines)) if lines[i].strip().startswith(fence["fence"]))
            content, number = lines[start:end], end + 1
        elif lines[number].startswith("    ") and _ends_a_paragraph(lines, number - 1):
            number = _end_of_indented(lines, number)
            content = [line[4:] for line in lines[start:number]]
        else:
            number += 1
            continue
        mark = _mark_above(lines, start - 1 - bool(fence))
        blocks.append(Block(document, start + 1, language, "\n".join(content) + "\n", mark))
    return blocks


def _ends_a_paragraph(lines: list[str], number: int) -> bool:
    return number < 0 or not lines[number].strip() or _MARK.match(lines[number]) is not None


def _end_of_indented(lines: list[str], start: int) -> int:
    """The index after the last indented line. Blank lines belong to a block that continues after them."""
    end = number = start
    while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
        number += 1
        if lines[number - 1].strip():
            end = number
    return end


def _mark_above(lines: list[str], number: int) -> str:
    while number >= 0 and not lines[number].strip():
        number -= 1
    found = _MARK.match(lines[number]) if number >= 0 else None
    return found["mark"] if found else ""


def commands_of(block: Block) -> list[Command]:
    """The commands of a shell block. Blocks in other languages and listings have none."""
    if block.language not in SHELL or block.mark.startswith(("prints", "file ")):
        return []
    commands: list[Command] = []
    if not block.language and block.text.split()[0] in LISTINGS:
        return []
    for offset, line in _logical_lines(block.text):
        commands += [Command(block.document, block.line + offset, words) for words in _simple_commands(line)]
    return commands


def all_commands(document: Path) -> list[Command]:
    """The commands in a document's shell blocks, then the commands in its inline code that start our programs."""
    commands = [command for block in read_blocks(document) for command in commands_of(block)]
    for span in inline_code(document):
        if _OURS.match(span):
            commands += [Command(document, 0, words) for words in _simple_commands(span)]
    return commands


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines joined with their continuations, numbered from 0, without the content of here-documents."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        first, line = number, lines[number].strip().removeprefix("$ ")
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + lines[number].strip()
        here = re.search(r"<<-?\s*['\"]?(\w+)", line)
        if here:
            number += 1 + [word.strip() for word in lines[number + 1 :]].index(here[1])
            line = line[: here.start()]
        if line and not line.startswith("#"):
            yield first, line
        number += 1


def _simple_commands(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of one line, which operators such as | and && join."""
    words: list[str] = []
    for word in [*_words(line), ";"]:
        if word not in _OPERATORS:
            words.append(word)
            continue
        while words and _ASSIGNMENT.match(words[0]):
            del words[0]
        if words:
            yield tuple(words)
        words = []


def _words(line: str) -> Iterator[str]:
    """The words of a line up to its comment. The generator stops there, since a comment may have a lone apostrophe."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    redirected = False
    for word in lexer:
        if word.startswith("#"):
            return
        if set(word) <= set("<>&") and set(word) & set("<>"):
            redirected = True
        elif redirected:
            redirected = False
        elif word != "…":
            yield word


def inline_code(document: Path) -> list[str]:
    """The contents of `…` spans outside code blocks; line breaks become spaces."""
    spans = re.findall(r"(`+)(.+?)\1", _prose(document), flags=re.DOTALL)
    return [" ".join(span.split()) for _, span in spans]


def links(document: Path) -> list[str]:
    """The targets of links and pictures, except links to other sites."""
    prose = re.sub(r"`[^`]*`", "", _prose(document))
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(document: Path) -> set[str]:
    """The anchors that a link to a document can name after `#`: its headings as GitHub writes them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} (.+?)\s*#*$", _prose(document), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 1
        unique = name
        while unique in found:
            unique = f"{name}-{number}"
            number += 1
        found.add(unique)
    return found


def _prose(document: Path) -> str:
    """The text of a document with blank code blocks."""
    lines = document.read_text(encoding="utf-8").splitlines()
    for block in read_blocks(document):
        count = len(block.text.splitlines())
        lines[block.line - 1 : block.line - 1 + count] = [""] * count
    return "\n".join("" if _FENCE.match(line) else line for line in lines)
