"""Claims about what is written for people: links lead somewhere, commands and paths are those that there are, code compiles."""

from collections.abc import Callable

import pytest
import yaml
from tests.docs.checks import check_links, check_names, check_paths, check_python, check_results, check_settings
from tests.docs.commands import ROOT, check_commands
from tests.docs.pages import anchors, read_page, spans

BASE = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
PAGES = [ROOT / "README.md", ROOT / "config" / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
CHECKS: dict[str, Callable[[str], list[str]]] = {
    "commands": check_commands,
    "settings": lambda text: check_settings(text, BASE),
    "python": check_python,
    "paths": check_paths,
    "names": check_names,
    "results": check_results,
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files_and_headings(path):
    assert check_links(path) == []


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_says_of_the_repository_is_so(path, name):
    assert CHECKS[name](path.read_text(encoding="utf-8")) == []


def test_the_checks_have_something_to_look_at():
    pages = {path: read_page(path.read_text(encoding="utf-8")) for path in PAGES}
    blocks = [block for page in pages.values() for block in page.blocks]
    assert sum("snakemake " in block.text for block in blocks) > 4 and sum("rlphf " in block.text for block in blocks) > 2
    assert {"python", "yaml"} <= {block.language for block in blocks}
    assert sum(len(spans(page.prose)) for page in pages.values()) > 300


def fenced(language: str, text: str) -> str:
    return f"Text.\n\n```{language}\n{text}\n```\n"


def indented(text: str, margin: int = 4) -> str:
    return "Text:\n\n" + "".join(f"{' ' * margin}{line}\n" for line in text.splitlines()) + "\nText.\n"


PLANTED = [
    ("commands", indented("rlphf summery --tables t"), "invalid choice: 'summery'"),
    ("commands", indented("rlphf soup merge --recipe r.yaml"), "required: --out"),
    ("commands", indented("rlphf soup merge --recipe r.yaml \\\n  --to x"), "required: --out"),
    ("commands", indented("rlphf soup merge --recipe r.yaml --out x --weights y"), "unrecognized arguments: --weights y"),
    ("commands", indented("rlphf plan --config c.yaml --gpus many"), "invalid int value: 'many'"),
    ("commands", fenced("bash", "cd x && rlphf soup blend"), "invalid choice: 'blend'"),
    ("commands", fenced("sh", "OMP_NUM_THREADS=1 .venv/bin/rlphf soups"), "invalid choice: 'soups'"),
    ("commands", "Try `rlphf soup blend`.", "invalid choice: 'blend'"),
    ("commands", "Try `rlphf soup\nmerge --weights w`.", "unrecognized arguments: --weights w"),
    ("commands", indented("make demos"), "no target demos"),
    ("commands", "Run `make tests`.", "no target tests"),
    ("commands", indented('make demo ARG="--dry-run"'), "reads no ARG"),
    ("commands", indented("snakemake --configfile config/experiments/nowhere.yaml"), "nowhere.yaml is not there"),
    ("commands", indented("snakemake --workflow-profile workflow/profiles/moon"), "moon is not there"),
    ("commands", indented("snakemake --dryrun-please"), "unrecognized arguments"),
    ("commands", indented("snakemake --cores 1 -- usrs"), "no rule usrs"),
    ("commands", indented("snakemake --cores 1 --config sed=7"), "no setting sed"),
    ("commands", "- An item:\n\n      make nothing\n", "no target nothing"),
    ("commands", indented("python -m benchmark --help"), "no module benchmark"),
    ("commands", indented("python docs/dags.py"), "docs/dags.py is not there"),
    ("commands", indented("rlphf plan --config 'x"), "a quote is not closed"),
    ("settings", fenced("yaml", "ppo: {updats: 3}"), "ppo.updats: unknown key"),
    ("settings", fenced("yaml", "experiment: mine\nppo: {updates: 0}"), "greater than 0"),
    ("settings", fenced("yaml", "pppo: {updates: 1}"), "pppo is neither"),
    ("settings", indented("set-resorces:\n  mt: {gpu: 4}"), "set-resorces is neither"),
    ("settings", fenced("yaml", "rule: delta\nweights: {P1A: 1}\npaths: {P1B: x}"), "validation error"),
    ("settings", fenced("yaml", "a: ["), "while parsing"),
    ("settings", fenced("yaml", "- a"), "a list"),
    ("settings", indented('{"prompt": "a", }'), "line 3"),
    ("python", fenced("python", "print("), "line 4"),
    ("python", fenced("python", "from rlphf.preferences import instructions"), "no rlphf.preferences.instructions"),
    ("python", fenced("python", "import rlphf.preference"), "no rlphf.preference"),
    ("paths", "See `src/rlphf/nothing.py`.", "src/rlphf/nothing.py is not there"),
    ("paths", "See `train/nothing.py`.", "train/nothing.py is not there"),
    ("paths", "See `nothing.py`.", "nothing.py is not there"),
    ("paths", "See `docs/`, `doc/x.md`.", "doc/x.md is not there"),
    ("paths", "See `config/experiments/none.yaml`.", "none.yaml is not there"),
    ("paths", "See `tests/none*/`.", "none*/ is not there"),
    ("paths", indented("cp workflow/profiles/none.yaml x"), "workflow/profiles/none.yaml is not there"),
    ("names", "See `rlphf.train.ppo_terms:nothing`.", "no rlphf.train.ppo_terms:nothing"),
    ("names", "See `rlphf.preferences.nothing`.", "no rlphf.preferences.nothing"),
    ("names", "See `rlphf.nothing:instruction`.", "no rlphf.nothing:instruction"),
    ("names", "See `tests/test_seeds.py::test_nothing`.", "no tests/test_seeds.py::test_nothing"),
    ("names", "See `ppo.updats`.", "no setting ppo.updats"),
    ("names", "See `ppo.lora.rang: 3`.", "no setting ppo.lora.rang"),
    ("results", "See table `matrx`.", "no table matrx"),
    ("results", "See tables `matrix`, `averages` and\n`swap`.", "no tables swap"),
    ("results", "See table and figure `costs`.", "no table and figure costs"),
    ("results", "See figure `budgets`.", "no figure budgets"),
    ("names", "See `tests/test_nothing.py::test_seeds`.", "no tests/test_nothing.py"),
]


@pytest.mark.parametrize(("name", "text", "fault"), PLANTED, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(PLANTED)])
def test_a_planted_mistake_is_found(name, text, fault):
    found = CHECKS[name](text)
    assert len(found) == 1 and fault in found[0] and found[0].startswith("line "), found


RIGHT = [
    ("commands", indented("rlphf soup merge --recipe recipe.yaml --out my_soup  # a remark\n\n    make demo ARGS=--dry-run")),
    ("commands", "`rlphf users fit-soup`, `rlphf --help`, `rlphf judge`, `rlphf soup merge --recipe r`, `make`, `rlphf.seeds`"),
    ("commands", "`snakemake ... --printshellcmds` and a sentence that doesn't start a program."),
    ("commands", indented("snakemake --workflow-profile workflow/profiles/default --config seed=7 -- users")),
    ("commands", fenced("python", "make = 1") + indented("python -m pytest tests\npython docs/dag.py")),
    ("commands", "- An item\n  that goes on: make nothing of this.\n\n  Another paragraph of it: make nothing.\n"),
    ("settings", fenced("yaml", "ppo: {kl_coefficient: 0.1}")),
    ("settings", indented("set-resources:\n  mt: {gpu: 4}", margin=6)),
    ("settings", fenced("yaml", "rule: factor\nweights: {P1A: 0.5, P2A: 0.5}\npaths: {P1A: a, P2A: b}")),
    ("settings", indented('{"prompt": "a"}\n{"prompt": "b"}')),
    ("settings", fenced("json", '{\n  "a": 1\n}') + "\n" + indented("rlphf: error: x.yaml: a: b")),
    ("python", fenced("python", "from rlphf.preferences import instruction\nimport rlphf.seeds\nimport json")),
    ("paths", "`src/rlphf/seeds.py`, `seeds.py`, `train/ppo.py`, `docs/`, `tests/docs/*.py`, `results/demo/x.py/y`, `gold/P2A`"),
    ("paths", "`config/experiments/mine.yaml`, `recipe.yaml`, `allenai/tulu-2-7b`, `raw/x.jsonl`, `seed-<N>/config.yaml`"),
    ("names", "`rlphf.preferences.instruction`, `rlphf.preferences:instruction`, `rlphf.errors:InputError`, `rlphf.seeds`"),
    ("names", "`ppo.lora.rank`, `ppo.keep: best`, `prompts.parquet`, `config.py`, `evaluation.llm`, `data.sources`"),
    ("results", "Tables `matrix` and `averages`, figure `costs`, table and figure `front`; a table `x y`."),
    ("names", "`rlphf.config:Experiment.varied`, `tests/test_seeds.py`"),
]


@pytest.mark.parametrize(("name", "text"), RIGHT, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RIGHT)])
def test_what_is_right_has_no_fault(name, text):
    assert CHECKS[name](text) == []


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("other.md", ""),
        ("#a-heading-with-code", ""),
        ("other.md#twice-1", ""),
        ("https://example.org/x", ""),
        ("folder/", ""),
        ("none.md", "none.md is not there"),
        ("#no-heading", "no heading of that name"),
        ("other.md#twice-2", "no heading of that name"),
        ("other.md#in-code", "no heading of that name"),
    ],
)
def test_links_are_followed(tmp_path, target, fault):
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.md").write_text("# Twice\n\n## Twice\n\n```\n# In code\n```\n")
    (tmp_path / "page.md").write_text(f"# A heading with `code`\n\nSee [there]({target}), not `[here](none)`.\n")
    found = check_links(tmp_path / "page.md")
    assert found == ([f"line 3: {found[0].removeprefix('line 3: ')}"] if fault else []) and all(fault in text for text in found)


def test_blocks_are_found_where_they_are_and_prose_keeps_its_lines():
    text = "# A\n\nText `code\nof two` lines.\n\n    indented\n\n      more\n\n- item\n\n      in it\n\n"
    text += "  ```yaml\n  a: 1\n  ```\n\nEnd `x`.\n"
    page = read_page(text)
    assert [(block.language, block.text, block.line) for block in page.blocks] == [
        ("", "indented\n\n  more", 6),
        ("", "in it", 12),
        ("yaml", "a: 1", 15),
    ]
    assert spans(page.prose) == [(3, "code of two"), (18, "x")]


def test_anchors_are_those_of_github():
    text = "# What a run leaves behind\n## ppo.lora\n### data.sources[]\n## `code` & more\n## Twice\n## Twice\n"
    assert anchors(text) == {"what-a-run-leaves-behind", "ppolora", "datasources", "code--more", "twice", "twice-1"}
