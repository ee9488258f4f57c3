"""Reads a page of Markdown: its blocks of code, what is code in a line, its links, and the anchors of its headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([\w-]*)[^`]*$")
HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)?$")


@dataclass(frozen=True)
class Block:
    """A block of code: its language ("" for an indented one or a bare fence), its text without indentation, its first line."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """The blocks of a page, and its other text with line breaks where they were, so that lines keep their numbers."""

    blocks: tuple[Block, ...]
    prose: str


def read_page(text: str) -> Page:
    """Take a page apart. Indented blocks follow an empty line, four spaces in, or four beyond the list that they are in."""
    lines, blocks, prose = text.splitlines(), [], []
    i, margin = 0, 0
    while i < len(lines):
        line = lines[i]
        fence = FENCE.match(line)
        if fence:
            end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[2]), len(lines))
            body = lines[i + 1 : end]
            blocks.append(Block(fence[3], _dedented(body), i + 2))
            i = end + 1
        elif _indent(line) >= margin + 4 and (i == 0 or not lines[i - 1].strip()):
            end = i
            while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) >= margin + 4):
                end += 1
            body = "\n".join(lines[i:end]).rstrip("\n").split("\n")
            blocks.append(Block("", _dedented(body), i + 1))
            i = i + len(body)
        else:
            item = re.match(r"^ *(?:[-*+]|\d+[.)]) +", line)
            if item:
                margin = len(item[0])
            elif line.strip() and _indent(line) < margin:
                margin = 0
            prose.append(line)
            i += 1
            continue
        prose += [""] * (i - len(prose))
    return Page(tuple(blocks), "\n".join(prose))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" ")) if line.strip() else 0


def _dedented(lines: list[str]) -> str:
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


def spans(prose: str) -> list[tuple[int, str]]:
    """Return (line, text) of what is code within a line or paragraph; a line break in it is a space."""
    found = []
    for match in re.finditer(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", prose, re.DOTALL):
        found.append((prose.count("\n", 0, match.start()) + 1, re.sub(r"\s*\n\s*", " ", match[2]).strip()))
    return found


def links(prose: str) -> list[tuple[int, str]]:
    """Return (line, target) of the links and pictures of a text."""
    plain = re.sub(r"(`+)(?:(?!\n\s*\n).)+?\1", lambda match: "\n" * match[0].count("\n"), prose, flags=re.DOTALL)
    # What is code may be the text of a link, so that is left empty here, and may not be a link.
    return [(plain.count("\n", 0, m.start()) + 1, m[1]) for m in re.finditer(r"\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)", plain)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for line in read_page(text).prose.splitlines():
        heading = HEADING.match(line)
        if heading:
            title = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading[1]).lower()
            name = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            again = next(i for i in range(len(found) + 1) if (f"{name}-{i}" if i else name) not in found)
            found.add(f"{name}-{again}" if again else name)
    return found


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield (names of columns, rows) of a page's tables."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield head, rows
