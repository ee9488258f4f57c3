import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest

from rlphf.cli import main
from rlphf.files import sha256
from rlphf.tracking.crate import METADATA, crate_step, metadata
from rlphf.tracking.record import RECORD, WORKFLOW, step
from rlphf.tracking.steps import end_workflow, start_workflow

RESULTS = Path("results/small")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small experiment: a policy, of which a table and a figure are made."""
    monkeypatch.chdir(tmp_path)
    raw, seed = write(Path("raw/pairs of mine.jsonl"), "{}\n"), RESULTS / "seed-7"
    write(seed / "config.yaml", "seed: 7\n")
    start_workflow(RESULTS, "small", "abc")
    with step("ppo", seed / "ppo/P1A", inputs={"pairs": raw}, params={"kl": 0.2}) as run:
        write(seed / "ppo/P1A/adapter/adapter_model.safetensors", "weights")
        run.log({"kl": 1.0}, step=1)
        run.output(seed / "ppo/P1A/adapter")
    with step("tables", RESULTS / "tables", inputs={"ppo/P1A": seed / "ppo/P1A/adapter"}) as run:
        run.output(write(RESULTS / "tables/methods of all.csv", "1\n"))
    with step("figures results", RESULTS / "figures/results", inputs={"m": RESULTS / "tables/methods of all.csv"}) as run:
        run.output(write(RESULTS / "figures/methods.png", "picture"))
    with step("summary", RESULTS / "summary", inputs={"m": RESULTS / "tables/methods of all.csv"}) as run:
        run.output(write(RESULTS / "summary.txt", "fine\n"))
    end_workflow(RESULTS, "finished")


def graph(crate: Path) -> dict[str, dict]:
    things = json.loads((crate / METADATA).read_text())["@graph"]
    assert len({thing["@id"] for thing in things}) == len(things)
    return {thing["@id"]: thing for thing in things}


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else [name for part in value.values() for name in references(part)]
    return [name for part in value for name in references(part)] if isinstance(value, list) else []


def test_every_name_resolves_and_every_file_is_there_as_described():
    crate_step(RESULTS, Path("crate"))
    things = graph(Path("crate"))
    for thing in things.values():
        for name in references(thing):
            assert name in things or name == "https://w3id.org/ro/crate/1.1", name
    files = {unquote(name): thing for name, thing in things.items() if thing["@type"] == "File"}
    there = {path.relative_to("crate").as_posix() for path in Path("crate").rglob("*") if path.is_file()}
    assert there == {METADATA, *files}
    for name, thing in files.items():
        assert thing["contentSize"] == str(Path("crate", name).stat().st_size)
        assert thing["sha256"] == sha256(Path("crate", name)) == sha256(RESULTS / name)
    assert {unquote(part["@id"]) for part in things["./"]["hasPart"]} == set(files)
    assert {"tables/methods of all.csv", "figures/methods.png", "summary.txt", "seed-7/config.yaml", WORKFLOW} <= set(files)
    assert f"seed-7/ppo/P1A/{RECORD}" in files and "seed-7/ppo/P1A/adapter/adapter_model.safetensors" not in files


def test_each_step_is_an_action_with_instrument_object_result_and_times():
    crate_step(RESULTS, Path("crate"))
    things = graph(Path("crate"))
    actions = {thing["name"]: thing for thing in things.values() if thing["@type"] == "CreateAction"}
    assert sorted(actions) == ["rlphf figures results", "rlphf ppo", "rlphf summary", "rlphf tables", "rlphf workflow small"]
    assert {part["@id"] for part in things["./"]["mentions"]} == {action["@id"] for action in actions.values()}
    for path in RESULTS.rglob(RECORD):
        record = json.loads(path.read_text())
        action = actions[f"rlphf {record['step']}"]
        assert (action["startTime"], action["endTime"]) == (record["start"], record["end"])
        assert things[action["subjectOf"]["@id"]]["about"] == {"@id": action["@id"]}
        for kind, given in (("object", record["inputs"].values()), ("result", record["outputs"].values())):
            assert [things[one["@id"]]["sha256"] for one in action[kind]] == [described["sha256"] for described in given]
    policy = actions["rlphf ppo"]
    assert things[policy["object"][0]["@id"]]["name"] == "raw/pairs of mine.jsonl"
    assert actions["rlphf tables"]["object"] == policy["result"]
    assert (
        actions["rlphf figures results"]["object"]
        == actions["rlphf tables"]["result"]
        == [{"@id": "tables/methods%20of%20all.csv"}]
    )
    program = things[policy["instrument"]["@id"]]
    assert (program["@type"], program["name"]) == ("SoftwareApplication", "rlphf ppo")
    libraries = {things[one["@id"]]["name"]: things[one["@id"]]["softwareVersion"] for one in program["softwareRequirements"]}
    assert libraries == json.loads((RESULTS / "seed-7/ppo/P1A" / RECORD).read_text())["versions"]


def test_a_file_that_changed_after_its_step_is_not_called_that_steps_result():
    write(RESULTS / "tables/methods of all.csv", "2\n")
    things = {thing["@id"]: thing for thing in metadata(RESULTS)["@graph"]}
    (made,) = (thing["result"] for thing in things.values() if thing["@type"] == "CreateAction" and "tables" in thing["name"])
    assert things[made[0]["@id"]]["@type"] == "CreativeWork"
    assert things["tables/methods%20of%20all.csv"]["sha256"] == sha256(RESULTS / "tables/methods of all.csv")


def test_a_record_that_is_none_of_ours_is_no_action():
    path = next(path for path in RESULTS.rglob("record.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": None}))
    assert main(["track", "crate", "--results", str(RESULTS), "--out", "crate"]) == 0
    records = [part for part in graph(Path("crate")).values() if part.get("name", "").endswith("record.json")]
    assert len([record for record in records if "about" not in record]) == 1


def test_a_zip_holds_the_same_and_is_the_same_each_time():
    crate_step(RESULTS, Path("crate"))
    for name in ("a.zip", "b.zip"):
        crate_step(RESULTS, Path(name))
    assert sha256("a.zip") == sha256("b.zip")
    with zipfile.ZipFile("a.zip") as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert archive.read(name) == Path("crate", name).read_bytes()
        assert set(archive.namelist()) == {p.relative_to("crate").as_posix() for p in Path("crate").rglob("*") if p.is_file()}


def test_a_crate_takes_the_place_of_a_crate_and_of_nothing_else(capsys):
    for _ in range(2):
        assert main(["track", "crate", "--results", str(RESULTS), "--out", "crate"]) == 0
    write(Path("mine/notes.txt"), "mine")
    capsys.readouterr()
    for place in ("mine", "mine/notes.txt", str(RESULTS)):
        assert main(["track", "crate", "--results", str(RESULTS), "--out", place]) == 2
        assert capsys.readouterr().err == f"rlphf: error: {place}: is there and no crate; give a new folder, or FILE.zip\n"
    assert Path("mine/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda: start_workflow(RESULTS, "small", "abc"), "results/small: its last start is 'running'; only a finished"),
        (lambda: (RESULTS / WORKFLOW).unlink(), "results/small: is no experiment's folder; give one such as results/demo"),
        (lambda: (RESULTS / WORKFLOW).write_text("{"), "results/small/.workflow.json: cannot be read as JSON"),
        (lambda: (RESULTS / WORKFLOW).write_text("[]"), "results/small/.workflow.json: is no record of a workflow"),
    ],
)
def test_what_has_not_finished_is_refused_in_one_line(change, line, capsys):
    change()
    assert main(["track", "crate", "--results", str(RESULTS), "--out", "crate.zip"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"rlphf: error: {line}") and shown.count("\n") == 1
    assert not Path("crate.zip").exists()
