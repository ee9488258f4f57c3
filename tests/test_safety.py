"""Claims about what the code never does: unpickle, run code of its input, leave a shell a word to split, give a secret away."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
AUTO = re.compile(r"Auto(Model\w*|Tokenizer|Config)$")


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield (dotted name of what is called, call) of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def is_false(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def commands() -> list[tuple[str, str]]:
    """Return (rule, shell command) of all rules."""
    found = []
    for path in RULES:
        for name, body in re.findall(r"^ *rule ?(\w*):\n((?:(?: .*)?\n)*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            shell = re.search(r"^ +shell:\n((?:        .*\n)+)", body, re.MULTILINE)
            if shell:
                found.append((name, "".join(re.findall(r'"(.*)"', shell[1]))))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_unpickles_or_evaluates(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & UNPICKLING
    for name, call in calls(path):
        assert name not in ("torch.load", "eval", "exec", "compile", "os.system", "os.popen"), ast.unparse(call)
        assert not name.endswith(("read_pickle", "load_pickle", "torch_load")), ast.unparse(call)
        assert name not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"), ast.unparse(call)
        named = keywords(call)
        assert "allow_pickle" not in named or is_false(named["allow_pickle"]), ast.unparse(call)
        assert "shell" not in named or is_false(named["shell"]), ast.unparse(call)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_models_bring_no_code_and_no_pickle(path):
    for name, call in calls(path):
        named = keywords(call)
        assert "trust_remote_code" not in named or is_false(named["trust_remote_code"]), ast.unparse(call)
        owner, _, method = name.rpartition(".")
        if method != "from_pretrained":
            continue
        if AUTO.match(owner):
            # Left out, the library asks whoever sits at the terminal whether to run the model's code.
            assert is_false(named.get("trust_remote_code")), ast.unparse(call)
        if owner.startswith("AutoModel") and "gguf_file" not in named or owner == "PeftModel":
            assert ast.unparse(named["use_safetensors"]) == "True", ast.unparse(call)


def test_yaml_is_read_by_loaders_that_make_plain_values():
    named = [
        (node.attr, path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml"
    ]
    assert named
    assert not [one for one in named if one[0] in ("Loader", "FullLoader", "UnsafeLoader", "CLoader")]


def test_every_word_that_a_rule_puts_into_a_shell_is_quoted():
    found = commands()
    assert len(found) > 20
    for rule, command in found:
        fields = re.findall(r"(?<!\{)\{([^{}]+)\}(?!\})", command)
        assert fields and all(field.endswith(":q") for field in fields), (rule, fields)


def test_rules_run_no_python_of_their_own():
    assert RULES
    for path in RULES:
        assert not re.search(r"^    (run|script|notebook):", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_what_is_downloaded_is_checked_by_its_digest_before_it_is_opened():
    package = ROOT / "src" / "rlphf" / "lm" / "package.py"
    (function,) = [
        node
        for node in ast.parse(package.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "gguf_file"
    ]
    found = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    place = {node.func.id: node.lineno for node in found}
    assert place["fetch"] < place["check"] < place["unpack"]
    fetching = {
        path.name for path in MODULES for name, _ in calls(path) if re.search(r"urlopen|urlretrieve|requests\.|httpx\.", name)
    }
    # The doctor asks a tracking server whether it is well, and keeps nothing of what it says.
    assert fetching == {"doctor.py"}


def test_no_setting_holds_a_secret():
    from rlphf.config_file import schema

    named = {name for section in schema()["$defs"].values() for name in section["properties"]}
    assert not [name for name in named if re.search(r"password|secret|token$|api_key|credential", name)]


def test_a_key_in_a_server_s_reply_or_address_reaches_no_record(monkeypatch):
    from rlphf.config import parse
    from rlphf.errors import InputError
    from rlphf.evaluate.judges.client import Client
    from rlphf.settings_evaluation import LLMJudge

    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    assert Client(LLMJudge(base_url="http://127.0.0.1:9/v1"))._clean("as sk-of-mine says") == "as [key] says"
    with pytest.raises(InputError) as caught:
        parse({"experiment": "mine", "evaluation": {"llm": {"base_url": "http://sk-of-mine@127.0.0.1/v1"}}})
    assert "sk-of-mine" not in str(caught.value)
