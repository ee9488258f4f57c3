"""Claims about the command line: its commands, what they cost to start, and how they end."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlphf import __version__
from rlphf.cli import main, parser
from rlphf.commands import COMMANDS, Command
from rlphf.config import load

SOURCE = Path(__file__).parent.parent / "src"
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "mlflow", "accelerate")
# Commands that work on texts, tables and records alone, and so have to start without any of the above.
LIGHT = ("data prepare", "data prompts", "users pairs", "annotate", "tables", "summary", "figures", "track sync", "config write")
LIGHT += ("judge oracle", "judge rules", "judge llm", "judge export", "judge import", "judge users")
LIGHT += ("users import", "users tables", "claims", "chat", "sample", "new-preference", "hub push", "doctor", "gc")
LIGHT += ("track lineage", "track crate", "explorer")
# Commands that read tensors and no model.
WITH_TORCH_ALONE = ("soup all", "soup merge")


def function(command: Command) -> ast.FunctionDef:
    """Return the definition of a command's function, read from the text of its module."""
    module, name = command.target.split(":")
    text = SOURCE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found


def loaded(code: str) -> list[str]:
    """Return which of the heavy libraries a fresh process has imported after `code`."""
    code += f"\nimport sys, json; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_options_of_a_command_are_the_parameters_of_its_function(command):
    arguments = function(command).args
    assert not arguments.vararg and not arguments.kwarg and not arguments.posonlyargs and not arguments.kwonlyargs
    defaults = dict(zip([a.arg for a in arguments.args][::-1], arguments.defaults[::-1], strict=False))
    options = {option.flag.replace("-", "_"): option for option in command.options}
    assert set(options) == {a.arg for a in arguments.args}
    for argument in arguments.args:
        option, kind = options[argument.arg], ast.unparse(argument.annotation)
        expected = {
            "path": "Path",
            "argument": "Path",
            "text": "str",
            "integer": "int",
            "number": "float",
            "switch": "bool",
            "paths": "Sequence[Path]",
            "texts": "Sequence[str]",
        }[option.kind]
        assert kind.removesuffix(" | None") == expected, argument.arg
        # What may be left out is None or, for a switch, off: a value that its function has to be able to take.
        assert option.required or kind.endswith(" | None") or option.kind == "switch", argument.arg
        assert not (option.required and argument.arg in defaults), argument.arg


def test_every_command_has_a_name_of_its_own_and_a_help_text(capsys):
    assert len({c.name for c in COMMANDS}) == len(COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([*command.name.split(), "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(
            (option.flag.upper() if option.kind == "argument" else f"--{option.flag}") in shown for option in command.options
        )


def test_functions_say_what_they_do():
    assert all(ast.get_docstring(function(command)) for command in COMMANDS)


def test_the_command_line_itself_imports_nothing_heavy():
    assert loaded("from rlphf.cli import parser; parser()") == []


def test_steps_without_a_model_import_nothing_heavy():
    targets = [c.target.split(":")[0] for c in COMMANDS if c.name in LIGHT]
    assert len(targets) == len(LIGHT)
    assert loaded("\n".join(f"import {name}" for name in targets)) == []


def test_soups_are_merged_with_torch_alone():
    targets = {c.target.split(":")[0] for c in COMMANDS if c.name in WITH_TORCH_ALONE}
    assert loaded("\n".join(f"import {name}" for name in targets)) == ["torch"]


def test_a_command_that_works_ends_with_0(tmp_path):
    (tmp_path / "in.yaml").write_text("{experiment: mine, seed: 5}")
    assert main(["config", "write", "--config", str(tmp_path / "in.yaml"), "--out", str(tmp_path / "config.yaml")]) == 0
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["seed"] == 5
    assert load(tmp_path / "config.yaml").experiment == "mine"


def test_bad_input_ends_with_2_and_one_line_and_no_output(tmp_path, capsys):
    (tmp_path / "in.yaml").write_text("{experiment: mine, sed: 5}")
    assert main(["config", "write", "--config", str(tmp_path / "in.yaml"), "--out", str(tmp_path / "out" / "config.yaml")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"rlphf: error: {tmp_path}/in.yaml: sed: unknown key; remove it or see config/config.yaml\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.yaml"]


def test_bad_input_ends_the_process_with_2_and_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "rlphf.cli", "data", "prompts", "--config", "none.yaml", "--out", "out/prompts.parquet"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("rlphf: error: none.yaml: cannot be read") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["soup"], ["ppo"], ["data", "prompts"], ["data", "testbed", "--config", "a", "--out", "b", "--fast"]]
)
def test_unknown_or_incomplete_commands_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlphf" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-5", "2147483648", "9" * 30])
def test_memory_that_no_machine_has_is_refused(tmp_path, capsys, size):
    assert main(["--memory-mb", size, "gc", "--results", str(tmp_path)]) == 2
    said = f"rlphf: error: --memory-mb {size}: expected 1 or more, and below 2,147,483,648, or leave it out\n"
    assert capsys.readouterr().err == said


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"rlphf {__version__}\n"


def test_where_nobody_reads_what_is_printed_a_command_ends_quietly(tmp_path):
    """As before `| head -0`: the reader has left before the first line."""
    (tmp_path / ".workflow.json").write_text('{"status": "finished"}')
    listing = ["gc", "--results", str(tmp_path)]
    # What is printed is written at once, or at the end.
    for arguments, at_once in ((listing, "1"), (listing, ""), (["gc", "--help"], "")):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": at_once}
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "rlphf.cli", *arguments]
        done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


def test_another_pipe_that_breaks_is_an_error(monkeypatch):
    def broken(_):
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("rlphf.cli._run", broken)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        main(["gc"])
