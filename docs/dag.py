"""The picture of the DAG in architecture.md: Snakemake's graph of the demo's rules as a Mermaid diagram, thinned out to be read.

`make docs` writes it. Rules are grouped by the file that they are in; `all` is left out, rules of policies that train together
are one with `ppo`, and an edge is left out where a longer way says the same.
"""

import re
import subprocess
import sys
from pathlib import Path

START, END = "<!-- The DAG, written by `make docs`. -->\n", "<!-- The DAG ends. -->\n"
Edges = set[tuple[str, str]]
"""(rule, rule that needs it)."""


def read_graph(mermaid: str) -> Edges:
    """Return the edges of what `snakemake --rulegraph mermaid-js` prints, without `all` and with one rule `ppo`."""
    names = {node: re.sub(r"^ppo_.*", "ppo", name) for node, name in re.findall(r"^\s*(id\d+)\[(\w+)\]$", mermaid, re.MULTILINE)}
    found = re.findall(r"^\s*(id\d+) --> (id\d+)$", mermaid, re.MULTILINE)
    edges = {(names[a], names[b]) for a, b in found}
    return {(a, b) for a, b in edges if b != "all" and a != b}


def thinned(edges: Edges) -> Edges:
    """Return the edges without those that a longer way says as well (the transitive reduction of a graph without circles)."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(after.get(start, ()))
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += after.get(name, ())
        return found

    return {(a, b) for a, b in edges if not any(b in reached(other) for other in after[a] - {b})}


def stages(rules: Path) -> dict[str, str]:
    """Return {rule: name of its file} of a folder of rules."""
    return {
        name: path.stem
        for path in sorted(rules.glob("*.smk"))
        for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def picture(mermaid: str, rules: Path) -> str:
    """Return the diagram as a Markdown block between its marks, from what Snakemake prints and the folder of rules."""
    edges, stage = thinned(read_graph(mermaid)), stages(rules)
    names = {name for edge in edges for name in edge}
    lines = ["flowchart TB"]
    for group in dict.fromkeys(stage.values()):
        inside = [name for name, own in stage.items() if own == group and name in names]
        if inside:
            lines += [f'  subgraph {group}_smk["{group}.smk"]', *(f"    {name}" for name in inside), "  end"]
    lines += [f"  {a} --> {b}" for a, b in sorted(edges)]
    return "\n".join([START + "```mermaid", *lines, "```\n" + END])


def placed(page: str, block: str) -> str:
    """Return a page with `block` in place of what is between the marks; raise ValueError where they are not there once."""
    if page.count(START) != 1 or page.count(END) != 1:
        raise ValueError("the page has no place for the DAG")
    return page[: page.index(START)] + block + page[page.index(END) + len(END) :]


def main() -> None:
    """Draw the rules of the workflow in the working directory into docs/architecture.md."""
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "workflow/profiles/default", "--rulegraph", "mermaid-js"]
    mermaid = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    page = Path("docs/architecture.md")
    page.write_text(placed(page.read_text(encoding="utf-8"), picture(mermaid, Path("workflow/rules"))), encoding="utf-8")


if __name__ == "__main__":
    main()
