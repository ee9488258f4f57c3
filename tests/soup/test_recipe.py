"""Claims about recipe files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlphf.errors import InputError
from rlphf.soup.recipe import asked, make_recipe, read_recipe, write_recipe

GOOD = "rule: delta\nweights: {a: 0.5, b: -1}\npaths: {a: x/a, b: x/b}\n"


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message


def test_written_recipe_reads_back_equal(tmp_path):
    recipe = make_recipe({"b": -1.0, "a": 0.25}, {"a": "x/a", "b": "x/b"}, rule="delta", svd_rank=3)
    write_recipe(recipe, tmp_path)
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_order_of_adapters_leaves_no_trace_in_the_file(tmp_path):
    one = make_recipe({"b": -1.0, "a": 0.25}, {"a": "x/a", "b": "x/b"})
    two = make_recipe({"a": 0.25, "b": -1.0}, {"b": "x/b", "a": "x/./a/"})
    write_recipe(one, tmp_path / "one")
    write_recipe(two, tmp_path / "two")
    assert (tmp_path / "one/recipe.yaml").read_bytes() == (tmp_path / "two/recipe.yaml").read_bytes()


def test_rule_is_delta_unless_said(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("weights: {a: 1}\npaths: {a: x/a}\n")
    assert read_recipe(path).rule == "delta"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("weights: {a: 1}\npaths: {b: x}\n", 1, "'a' has a weight and no path"),
        ("weights: {a: 1}\npaths: {a: x, b: x}\n", 1, "'b' has a path and no weight"),
        ("weights: {}\npaths: {}\n", 1, "names no adapter"),
        ("rule: delta\npaths: {a: x}\n", 1, "weights: Field required"),
        ("weights: {a: 1}\npaths: {a: /x/a}\n", 2, "absolute"),
        ("weights: {a: 1}\npaths: {a: x/../../a}\n", 2, "leaves the working directory"),
        ("weights: {a: 1}\npaths: {a: ''}\n", 2, "empty"),
        ("weights:\n  a: 1\n  b: .nan\npaths: {a: x, b: x}\n", 3, "weights.b"),
        ("weights: {a: .inf}\npaths: {a: x}\n", 1, "finite"),
        ("weights: {a: much}\npaths: {a: x}\n", 1, "weights.a"),
        ("rule: cat\nweights: {a: 1}\npaths: {a: x}\n", 1, "'delta', 'factor', 'ties' or 'dare'"),
        ("weights: {a: 1}\npaths: {a: x}\nweight: 1\n", 3, "weight: unknown key"),
        ("weights: {a: 1}\npaths: {a: x}\nsvd_rank: 0\n", 3, "svd_rank"),
        ("rule: factor\nweights: {a: 1}\npaths: {a: x}\nsvd_rank: 2\n", 1, "svd_rank truncates no soup of rule factor"),
        ("rule: ties\nweights: {a: 1}\npaths: {a: x}\n", 1, "density is what the rules ties and dare need"),
        ("weights: {a: 1}\npaths: {a: x}\ndensity: 0.5\n", 1, "density is what the rules ties and dare need"),
        ("rule: dare\nweights: {a: 1}\npaths: {a: x}\ndensity: 0\n", 4, "density"),
        ("weights:\n  a: 1\n  a: 2\npaths: {a: x}\n", 3, "named twice"),
    ],
)
def test_bad_recipe_is_refused_with_line_and_field(tmp_path, text, line, words):
    message = refused(tmp_path, text)
    assert words in message
    assert f"line {line}:" in message


@pytest.mark.parametrize("text", ["", "- a\n", "weights: [a\n", "weights: !!python/object/apply:os.getcwd []\n", "? [a]\n: 1\n"])
def test_file_that_is_no_recipe_is_refused(tmp_path, text):
    refused(tmp_path, text)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="none.yaml"):
        read_recipe(tmp_path / "none.yaml")


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_any_finite_weights_read_back_as_they_were(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("recipe")
    recipe = make_recipe(weights, {name: f"x/{number}" for number, name in enumerate(weights)})
    write_recipe(recipe, folder)
    assert read_recipe(folder / "recipe.yaml") == recipe


@given(st.lists(st.sampled_from(["..", ".", "a", "b/c", ""]), min_size=1, max_size=6))
def test_a_path_stays_in_the_working_directory_or_is_refused(parts):
    path = "/".join(parts)
    try:
        kept = make_recipe({"a": 1.0}, {"a": path}).paths["a"]
    except InputError:
        return
    assert Path("/home", kept).resolve().is_relative_to("/home") and not kept.startswith("/")


def test_a_soup_is_asked_for_what_weighs_most_on_each_axis():
    assert asked({"P3A": 0.2, "P1A": 0.5, "P2B": 0.3}) == ["P1A", "P2B", "P3A"]
    assert asked({"P1A": 0.25, "P1B": 0.75}) == ["P1B"]
    assert asked({"P1A": 0.4, "P1B": 0.4, "P3B": 0.2, "P2A": 0.0}) == ["P3B"]
    assert asked({}) == []
