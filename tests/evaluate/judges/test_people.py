"""Claims about the sheet for people and the way back."""

import csv
from collections import Counter

import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.comparisons import COMPARISONS, RATED, check_comparisons, check_shown, questions
from rlphf.evaluate.judges.inputs import read_inputs
from rlphf.evaluate.judges.people import KEY, RATINGS, export_step, import_step
from rlphf.files import read_parquet

ITEMS = 48


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write(path, rows, names=RATINGS, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def sheet(inputs, tmp_path):
    """Folder of an exported sheet."""
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "sheet")
    return tmp_path / "sheet"


@pytest.fixture
def filled(sheet):
    """The folder of a sheet whose raters like the longer response, in the words of a spreadsheet program."""
    rows = read(sheet / "ratings.csv")
    for row in rows:
        row["verdict"] = "1" if len(row["response_1"]) > len(row["response_2"]) else " 2"
    rows[0]["verdict"] = "Tie"
    write(sheet / "ratings.csv", rows, encoding="utf-8-sig")
    return sheet


def back(folder):
    """Import a sheet; return the rows."""
    out = folder.parent / "people" / "comparisons.parquet"
    import_step(folder / "key.csv", folder / "ratings.csv", out)
    table = read_parquet(out, RATED)
    check_comparisons(table.select(COMPARISONS.names), "people")
    return table.to_pylist()


def test_people_are_asked_what_the_language_model_is_asked_in_one_order_each(inputs, sheet):
    key = read(sheet / "key.csv")
    found = questions(inputs.experiment, *read_inputs(inputs.prompts, inputs.responses))
    asked = {tuple(str(value) for name, value in q.columns.items() if name != "first") for q in found}
    assert Counter(tuple(row[name] for name in KEY[1:-2]) for row in key) == dict.fromkeys(asked, 1)
    assert len(key) == ITEMS
    # Both orders are drawn, and about equally often.
    assert 12 < Counter(row["first"] for row in key)["a"] < 36


def test_the_sheet_shows_the_responses_that_the_key_says(sheet):
    key = {row["item"]: row for row in read(sheet / "key.csv")}
    for row in read(sheet / "ratings.csv"):
        about = key[row["item"]]
        order = ("method_a", "method_b") if about["first"] == "a" else ("method_b", "method_a")
        assert (row["response_1"].split()[0], row["response_2"].split()[0]) == (about[order[0]], about[order[1]])
        assert about["prompt_id"] in row["response_1"] and row["question"] == f"What is number {about['prompt_id'][1]}?"
        assert row["verdict"] == "" and about["criterion"] not in row["criterion"]


def test_items_are_shuffled_and_their_names_tell_nothing(sheet):
    ratings, key = read(sheet / "ratings.csv"), read(sheet / "key.csv")
    sheet_name = ratings[0]["item"].split("-")[1]
    names = [f"item-{sheet_name}-{i:02d}" for i in range(1, ITEMS + 1)]
    assert [row["item"] for row in ratings] == names == [row["item"] for row in key]
    order = [(row["combination"], row["criterion"], row["prompt_id"]) for row in key]
    assert order != sorted(order)


def test_a_sheet_of_few_prompts_has_the_same_ones_for_every_pair_of_methods(inputs, tmp_path):
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "few", 1)
    key = read(tmp_path / "few" / "key.csv")
    assert len({row["prompt_id"] for row in key}) == 1 and len(key) == ITEMS // 2
    # Drawn, not the first of them; 3 of 4 leave one out.
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "more", 3)
    assert len({row["prompt_id"] for row in read(tmp_path / "more" / "key.csv")}) == 3
    for count in (0, 5):
        with pytest.raises(InputError, match=f"--prompt-count: {count} of 4 prompts cannot be drawn; take 1 to 4"):
            export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "none", count)
    assert not list((tmp_path / "none").glob("*.csv"))


def test_ratings_are_of_the_responses_that_were_shown_and_of_no_others(inputs, filled):
    back(filled)
    rated = read_parquet(filled.parent / "people" / "comparisons.parquet", RATED)
    check_shown(rated, "rated", inputs.experiment, *read_inputs(inputs.prompts, inputs.responses))
    # Second samples are shown to nobody.
    inputs.change("pp", lambda rows: [row | {"response": "Anew."} if row["sample"] else row for row in rows])
    check_shown(rated, "rated", inputs.experiment, *read_inputs(inputs.prompts, inputs.responses))
    inputs.change(
        "pp", lambda rows: [row | {"response": "Anew."} if row["combination"] == "P1A-P2B-P3A" else row for row in rows]
    )
    with pytest.raises(
        InputError, match=r"rated: row \d+: people saw other responses of .* to prompt q. \(combination P1A-P2B-P3A\)"
    ):
        check_shown(rated, "rated", inputs.experiment, *read_inputs(inputs.prompts, inputs.responses))


def test_the_same_seed_gives_the_same_sheet_and_another_seed_another(inputs, sheet, tmp_path):
    export_step(inputs.config, inputs.prompts, inputs.responses[::-1], tmp_path / "again")
    assert all((tmp_path / "again" / f).read_bytes() == (sheet / f).read_bytes() for f in ("ratings.csv", "key.csv"))
    inputs.config.write_text(inputs.config.read_text().replace("seed: 7", "seed: 8"))
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "other")
    assert (tmp_path / "other" / "key.csv").read_bytes() != (sheet / "key.csv").read_bytes()


def test_verdicts_come_back_as_those_of_the_methods(filled):
    rows = back(filled)
    (tie,) = [row for row in rows if row["verdict"] == 0]
    about = read(filled / "key.csv")[0]
    assert {name: str(tie[name]) for name in KEY[1:]} == {name: about[name] for name in KEY[1:]}
    # The answers of the methods that come later are longer.
    assert all(row["verdict"] == -1 for row in rows if row != tie)
    assert len(rows) == ITEMS and not any(row["malformed"] for row in rows)


def test_a_sheet_may_be_sorted_anew_and_its_texts_changed(filled):
    expected = back(filled)
    write(filled / "ratings.csv", [row | {"response_1": "", "question": "?"} for row in read_sig(filled)[::-1]])
    assert back(filled) == expected


def test_ratings_of_another_sheet_with_as_many_items_are_refused(inputs, filled, tmp_path):
    inputs.change("pp", lambda rows: [row | {"response": "Anew."} for row in rows])
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "other")
    write(tmp_path / "other" / "ratings.csv", [row | {"verdict": "1"} for row in read(tmp_path / "other" / "ratings.csv")])
    assert len(read(tmp_path / "other" / "key.csv")) == len(read(filled / "key.csv"))
    with pytest.raises(InputError, match="ratings.csv: line 2, item: .* is not in .*key.csv; take the key that was exported"):
        import_step(filled / "key.csv", tmp_path / "other" / "ratings.csv", tmp_path / "people" / "comparisons.parquet")
    assert not (tmp_path / "people" / "comparisons.parquet").exists()


def read_sig(folder):
    with (folder / "ratings.csv").open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [rows[0], rows[1] | {"verdict": " "}, *rows[2:]],
            "ratings.csv: line 3, verdict: is empty; write 1, 2 or tie",
        ),
        (lambda rows: [rows[0], rows[1] | {"verdict": "3"}, *rows[2:]], "ratings.csv: line 3, verdict: '3' is unknown"),
        (
            lambda rows: [rows[0], rows[1] | {"item": "item-99"}, *rows[2:]],
            "ratings.csv: line 3, item: 'item-99' is not in .*key",
        ),
        (lambda rows: [rows[0], rows[0], *rows[1:]], "ratings.csv: line 3, item: 'item-[0-9a-f]{8}-01' occurs twice"),
        (lambda rows: rows[:-1], r"ratings.csv: item: 'item-[0-9a-f]{8}-48' is missing \(1 of 48 are\)"),
        (lambda rows: [rows[0] | {"question": "Two\nlines?"}, rows[1] | {"verdict": "A"}], "ratings.csv: line 4, verdict: 'A'"),
    ],
)
def test_a_sheet_that_is_not_filled_in_is_refused_by_line_and_field(filled, change, message):
    write(filled / "ratings.csv", change(read_sig(filled)))
    with pytest.raises(InputError, match=message):
        back(filled)
    assert not (filled.parent / "people" / "comparisons.parquet").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "ratings.csv",
            "item,question",
            "item,prompt",
            "ratings.csv: line 1: columns are .*item, prompt.*; expected item, question",
        ),
        ("ratings.csv", "-02,", "-02,extra,", "ratings.csv: line 3: has 7 fields; expected 6"),
        ("key.csv", ",first,", ",", "key.csv: line 1: columns are .*; expected item, prompt_id"),
        ("key.csv", "-02,", "-01,", "key.csv: line 3, item: 'item-[0-9a-f]{8}-01' occurs twice"),
        ("key.csv", ",0,", ",zero,", "key.csv: line 2, sample: 'zero' is no number"),
        ("key.csv", ",b,", ",c,", "key.csv: row .*, column first: 'c' is neither a nor b"),
    ],
)
def test_changed_columns_and_a_changed_key_are_refused(filled, file, old, new, message):
    text = (filled / file).read_bytes().decode()
    assert old in text
    (filled / file).write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(InputError, match=message):
        back(filled)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"\xff\xfe", "cannot be read as UTF-8")])
def test_a_file_that_is_no_sheet_is_refused(filled, content, message):
    (filled / "ratings.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"ratings.csv: {message}"):
        back(filled)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_is_run_as_a_formula(inputs, tmp_path, start):
    text = f'{start}HYPERLINK("http://example.com", "see")'
    inputs.change("pp", lambda rows: [row | {"response": text} for row in rows])
    export_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "sheet")
    cells = [row[name] for row in read(tmp_path / "sheet" / "ratings.csv") for name in ("response_1", "response_2")]
    assert cells.count(f"'{text}") == ITEMS * 2 // 3 and not [cell for cell in cells if cell.startswith(start)]


def test_a_sheet_that_may_be_filled_in_is_not_written_over(inputs, filled):
    before = (filled / "ratings.csv").read_bytes()
    with pytest.raises(InputError, match="ratings.csv: exists, and may be filled in"):
        export_step(inputs.config, inputs.prompts, inputs.responses, filled)
    assert (filled / "ratings.csv").read_bytes() == before


def test_no_id_in_the_key_is_run_as_a_formula_and_ids_come_back_as_they_were(filled):
    text = (filled / "key.csv").read_text().replace(",q0,", ",'=cmd(),")
    (filled / "key.csv").write_text(text)
    assert "=cmd()" in {row["prompt_id"] for row in back(filled)}
