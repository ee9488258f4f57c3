"""Claims about the digests by which Snakemake notices an edit: what changes whose, and what changes nobody's."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlphf import sources
from rlphf.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rlphf"
PRINT = "import json; from rlphf.sources import *; print(json.dumps({c.name: source_digest(c.name) for c in COMMANDS}))"
EVERY = {c.name for c in COMMANDS}
# Commands whose only work is with records and configurations: their modules are left out of digests on purpose.
UNCOUNTED = {"track sync", "track lineage", "track crate", "config write", "gc"}

Changed = Callable[..., set[str]]


def digests(source: Path) -> dict[str, str]:
    """Return {command: digest} as a fresh process computes it from the package below `source`."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def assigned(path: Path) -> set[str]:
    """Return the names in capitals that a module gives values to, and does not import."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    return {name for name in found if name.isupper()}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of src/ and its digests."""
    source = tmp_path_factory.mktemp("copy") / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return source, digests(source)


@pytest.fixture
def changed_by(copied: tuple[Path, dict[str, str]]) -> Changed:
    """Return which commands' digests change when a line is added to files, which are put back afterwards."""
    source, before = copied

    def change(*names: str) -> set[str]:
        texts = {source / "rlphf" / name: (source / "rlphf" / name).read_text() for name in names}
        try:
            for path, text in texts.items():
                path.write_text(f"{text}\n# edited\n")
            after = digests(source)
        finally:
            for path, text in texts.items():
                path.write_text(text)
        return {name for name in before if before[name] != after[name]}

    return change


def test_digests_do_not_depend_on_where_the_package_lies(copied):
    assert copied[1] == digests(ROOT / "src")


def test_merging_is_part_of_the_soup_commands_and_of_no_other(changed_by):
    assert changed_by("soup/merge.py") == {"soup all", "soup merge", "users fit-soup", "users soups", "users cold-start"}


def test_the_rules_names_are_part_of_all_that_reads_recipes_though_settings_have_them(changed_by):
    changed = changed_by("soup_rules.py")
    assert changed == changed_by("soup/recipe.py") >= {"soup all", "soup merge", "tables", "explorer"}


def test_records_configuration_and_errors_are_part_of_no_command(changed_by):
    tracking = [f"tracking/{path.name}" for path in (PACKAGE / "tracking").glob("*.py")]
    settings = [path.name for path in PACKAGE.glob("settings*.py")]
    assert len(tracking) > 5 and {"settings.py", "settings_data.py", "settings_users.py"} <= {*settings}
    assert changed_by("config.py", "errors.py", "cards.py", "progress.py", *settings, *tracking) == set()


def test_what_is_made_of_settings_is_part_of_the_steps_that_make_it(changed_by):
    changed = changed_by("derived.py")
    assert {"policy train", "generate", "judge oracle", "judge gold", "soup all", "tables", "users tables"} <= changed
    assert not changed & {"backbone", "rollouts", "reward train", "users import"}


def test_no_module_that_counts_imports_a_constant_from_one_that_does_not():
    counted = {module for command in COMMANDS for module in sources.closure(command.target.split(":")[0])}
    assert len(counted) > 100
    for module in sorted(counted):
        for node in ast.walk(ast.parse(sources._file(module).read_text())):
            # The names of the files of records, which hold no result, are constants of `tracking`.
            if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith(sources.UNCOUNTED[1:]):
                constants = assigned(sources._file(node.module))
                assert not [alias.name for alias in node.names if alias.name in constants], (module, node.module)


def test_settings_compute_nothing():
    paths = [PACKAGE / "config.py", *PACKAGE.glob("settings*.py")]
    assert len(paths) > 5
    for path in paths:
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        assert not [node.name for node in functions if "property" in map(ast.unparse, node.decorator_list)], path


def test_what_all_steps_share_is_part_of_all_of_them(changed_by):
    assert EVERY - UNCOUNTED - {"figures"} <= changed_by("files.py")


def test_ppo_is_part_of_policies_alone(changed_by):
    assert changed_by("train/ppo.py") == {"policy train"}


def test_scoring_by_a_reward_model_is_part_of_all_that_scores_and_its_training_of_no_other(changed_by):
    assert changed_by("train/reward.py") == {"reward train"}
    scoring = {"reward train", "annotate", "judge gold", "users soups", "users fit-soup", "users cold-start"}
    # The testbed's users choose as annotators do (`data.annotate`).
    assert changed_by("lm/reward_model.py") == scoring | {"users pairs", "judge users"}


def test_readers_of_users_are_part_of_their_import_alone(changed_by):
    assert changed_by("data/user_sources/prism.py") == {"users import"}
    assert changed_by("data/people.py") == {
        *("users import", "users pairs", "users soups", "users cold-start"),
        *("judge users", "users tables", "claims", "figures", "summary", "explorer"),
    }


def test_plots_are_part_of_the_figures_though_a_notebook_draws_them(changed_by):
    assert changed_by("figures/plots.py") == {"figures"}


def test_data_files_count_as_code_of_the_modules_beside_them(changed_by):
    changed = changed_by("testbed/topics.yaml")
    assert {"data prompts", "backbone", "annotate", "judge oracle"} <= changed
    assert not changed & {"soup all", "reward train", "policy train", "figures"}


def test_the_page_s_parts_are_part_of_the_explorer_alone(changed_by):
    assert changed_by("explorer/page_1_state.js") == changed_by("explorer/page.html", "explorer/page.css") == {"explorer"}


def test_texts_that_a_judge_is_told_are_part_of_the_commands_that_show_them(changed_by):
    assert changed_by("evaluate/judges/templates/P1A.txt") == {"judge llm", "judge export", "judge import"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write modules of a package `rlphf` that takes the place of the real one."""
    cached = (sources._file, sources.imports, sources.closure)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    for function in cached:
        function.cache_clear()

    def write(module: str, text: str) -> None:
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for function in cached:
        function.cache_clear()


def test_a_module_and_what_it_imports_directly_or_not_are_its_closure(package):
    package("rlphf.a", "import rlphf.b\nimport json\n")
    package("rlphf.b", "from rlphf.sub import c\n")
    package("rlphf.sub.c", "from rlphf.a import something\n")
    package("rlphf.d", "")
    assert sources.closure("rlphf.a") == ("rlphf.a", "rlphf.b", "rlphf.sub.c")


def test_an_import_inside_a_function_counts(package):
    package("rlphf.a", "def f():\n    if True:\n        from rlphf.b import g\n")
    package("rlphf.b", "")
    assert sources.closure("rlphf.a") == ("rlphf.a", "rlphf.b")


def test_an_import_for_type_checking_alone_does_not_count(package):
    package("rlphf.a", "if TYPE_CHECKING:\n    from rlphf.b import B\nelse:\n    from rlphf.c import C\n")
    package("rlphf.b", "")
    package("rlphf.c", "")
    assert sources.imports("rlphf.a") == {"rlphf.c"}


def test_what_records_import_does_not_count_either(package):
    package("rlphf.a", "from rlphf.tracking import record\n")
    package("rlphf.tracking.record", "import rlphf.b\n")
    package("rlphf.b", "")
    assert sources.closure("rlphf.a") == ("rlphf.a",)


def test_every_rule_carries_the_digest_of_the_command_that_it_runs():
    rules = {}
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for name, body in re.findall(r"^ *rule ?(\w*):\n((?:    .*\n|\n)+)", path.read_text(), re.MULTILINE):
            if "    shell:" not in body:
                continue  # A target.
            rules[name] = (
                re.findall(r'source=source_digest\("([^"]+)"\)', body),
                re.search(r'"rlphf (?:--processes \{resources\.gpu:q\} )?([a-z]+(?: [a-z][a-z-]*)?)', body),
            )
    # The one without a name trains policies together.
    assert len(rules) >= 26 and "" in rules
    for name, (carried, command) in rules.items():
        assert command is not None and carried == [command[1]], name
        assert command[1] in EVERY
