import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from tests.figures.conftest import SERVING, USERS
from tests.figures.test_notebook import NOTEBOOKS
from tests.figures.test_plots import texts

from rlphf.evaluate.labels import method_label
from rlphf.evaluate.schemas import USER_TABLES
from rlphf.evaluate.table_files import read_table, write_table
from rlphf.figures import users
from rlphf.figures.notebook import figures_step
from rlphf.figures.style import COLOURS, save

NOTEBOOK = NOTEBOOKS[0].parent / "users.ipynb"
FIGURES = (
    *(users.users_accuracy, users.users_win_rates, users.users_length, users.users_map),
    *(users.cold_start, users.user_ablations),
)
draws = pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)


def intervals(rows):
    return [(row["ci_low"], row["ci_high"]) for row in rows]


def drawn_intervals(axes):
    """The ends of all vertical or horizontal error bars of a panel."""
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    return [tuple(segment[:, 1] if segment[0, 0] == segment[1, 0] else segment[:, 0]) for segment in segments]


def test_both_papers_stand_on_one_table_with_their_intervals(tables):
    left, right = users.users_accuracy(tables).axes
    told, served = read_table(tables, "users_accuracy"), read_table(tables, "users_scores")
    told = [row for group in USERS for row in told if row["population"] == group]
    served = [row for group in USERS for row in served if (row["population"], row["criterion"]) == (group, "score")]
    assert np.allclose([bar.get_width() for bar in left.patches], [row["accuracy"] for row in told])
    assert np.allclose([bar.get_width() for bar in right.patches], [row["mean"] for row in served])
    assert np.allclose(drawn_intervals(left), intervals(told)) and np.allclose(drawn_intervals(right), intervals(served))
    assert [label.get_text() for label in left.get_yticklabels()] == [method_label(name) for name in SERVING]
    # A reward model answers nothing: its place beside the others stays empty.
    middles = {round(bar.get_y() + bar.get_height() / 2) for bar in right.patches}
    assert middles == set(range(len(SERVING))) - {SERVING.index("prm")}


def test_ceilings_are_lines_in_the_colours_of_their_users(tables):
    left = users.users_accuracy(tables).axes[0]
    found = {to_hex(line.get_color()): line.get_xdata()[0] for line in left.get_lines() if line.get_linestyle() == "--"}
    assert found == dict(zip(map(to_hex, COLOURS[:3]), (0.81, 0.78, 0.79), strict=True))


def test_users_of_raw_data_have_no_ceilings_and_no_scores(tables, tmp_path):
    rows = read_table(tables, "users_accuracy")
    write_table(tmp_path, "users_accuracy", [row | {"ceiling": None} for row in rows if row["population"] != "unseen"])
    write_table(tmp_path, "users_scores", [])
    figure = users.users_accuracy(tmp_path)
    assert len(figure.axes[0].patches) == 2 * len(SERVING) and not figure.axes[1].patches
    assert users.NO_SCORES in {text.replace("\n", " ") for text in texts(figure)}
    assert "unseen" not in {text.get_text() for text in figure.legends[0].get_texts()}


def test_every_user_s_length_is_drawn_once_by_method_in_the_panel_of_the_group(tables):
    rows = [row for row in read_table(tables, "users_length") if row["method"] in users.LENGTHS]
    panels = users.users_length(tables).axes
    assert [axes.get_title("left") for axes in panels] == ["Majority", "Minority", "Unseen"]
    for axes, group in zip(panels, USERS, strict=True):
        wanted = sorted((row["tokens"], *interval) for row in rows if row["group"] == group for interval in intervals([row]))
        found = zip([bar.get_height() for bar in axes.patches], drawn_intervals(axes), strict=True)
        assert np.allclose(sorted((height, *ends) for height, ends in found), wanted)
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["kind 0  2", "kind 1  1", "kind 1  3"]


def test_of_many_users_some_are_drawn_and_the_figure_says_how_many(tables, tmp_path):
    row = read_table(tables, "users_length")[0]
    groups = ("majority", "minority", "unseen")
    write_table(tmp_path, "users_length", [row | {"user": user, "group": groups[user % 3]} for user in range(1, 1201)])
    figure = users.users_length(tmp_path)
    assert "User (40 of 1,200)" in texts(figure)
    assert sum(len(axes.patches) for axes in figure.axes) == 40


def test_the_map_shows_every_user_in_the_colour_of_the_kind_and_the_mark_of_the_group(tables):
    rows = read_table(tables, "users_map")
    for axes, name in zip(users.users_map(tables).axes, ("pdpo_individual", "pdpo_cluster"), strict=True):
        assert axes.get_title("left") == f"{method_label(name)} (83% of the variance)"
        found = {(*map(float, line.get_xydata()[0]), line.get_color(), line.get_marker()) for line in axes.get_lines()}
        assert found == {
            (row["x"], row["y"], COLOURS[row["user"] % 2], "o" if row["group"] == "majority" else "s")
            for row in rows
            if row["method"] == name
        }


def test_kinds_beyond_the_colours_are_others(tables, tmp_path):
    rows = read_table(tables, "users_map")
    write_table(tmp_path, "users_map", [row | {"user": i, "kind": f"kind {i:02}"} for row in rows[:1] for i in range(1, 31)])
    figure = users.users_map(tmp_path)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*(f"kind {i:02}" for i in range(1, 8)), "others", "majority"]


def test_scores_of_new_users_go_by_their_pairs_and_what_needs_none_is_a_band(tables):
    (axes,) = users.cold_start(tables).axes
    rows = [row for row in read_table(tables, "cold_start") if row["criterion"] == "score"]
    lines = {line.get_label(): line for line in axes.containers}
    for name in ("pdpo_individual", "psoups_inferred"):
        found = [row for row in rows if row["method"] == name]
        line, _, (bars,) = lines[method_label(name)]
        assert np.allclose(line.get_xydata(), [(row["pairs"], row["mean"]) for row in found])
        assert np.allclose([segment[:, 1] for segment in bars.get_segments()], intervals(found))
    (band,) = axes.patches
    (declared,) = (row for row in rows if row["method"] == "psoups_declared")
    assert np.allclose((band.get_y(), band.get_y() + band.get_height()), *intervals([declared]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5", "100"]


def test_each_setting_that_was_varied_has_a_panel_of_its_own(tables):
    panels = users.user_ablations(tables).axes
    rows = [row for row in read_table(tables, "user_ablations") if not row["against"]]
    names = ("Weight of the user's own term", "Start of the soft tokens", "Training pairs per user")
    assert [axes.get_xlabel() for axes in panels] == list(names)
    assert [axes.get_xscale() for axes in panels] == ["linear", "linear", "log"]
    assert [label.get_text() for label in panels[1].get_xticklabels()] == ["vocabulary", "uniform"]
    lines = {line.get_label(): line for line in panels[2].containers}
    assert len(lines) == 4
    for name in ("pdpo_individual", "dpo"):
        for group, stroke in (("minority", "-"), ("majority", "--")):
            key = ("population.train_pairs", name, group)
            found = [row for row in rows if (row["setting"], row["method"], row["population"]) == key]
            line, _, (bars,) = lines[f"{method_label(name)}, {group}"]
            assert line.get_linestyle() == stroke
            assert np.allclose(line.get_xydata(), [(float(row["value"]), row["effect"]) for row in found])
            assert np.allclose([segment[:, 1] for segment in bars.get_segments()], intervals(found))


def test_win_rates_are_those_among_seen_users(tables):
    axes = users.users_win_rates(tables).axes[0]
    rows = {(r["method_a"], r["method_b"]): r for r in read_table(tables, "users_win_rates") if r["population"] == "seen"}
    values = axes.images[0].get_array()
    assert values.shape == (5, 6)
    assert values[2, 1] == rows["pdpo_individual", "dpo"]["rate_half_ties"]
    assert f"{rows['sft', 'dpo']['ci_low']:.0%}\N{EN DASH}{rows['sft', 'dpo']['ci_high']:.0%}" in texts(axes.figure)


@draws
def test_empty_tables_are_a_line_of_text(draw, tmp_path):
    for name in USER_TABLES:
        write_table(tmp_path, name, [])
    figure = draw(tmp_path)
    (line,) = texts(figure)
    assert line.startswith("No ") and line.endswith(".")
    save(figure, tmp_path, draw.__name__)


@draws
def test_one_method_one_group_and_one_value_are_drawn_too(draw, tables, tmp_path):
    for name in USER_TABLES:
        rows = [row for row in read_table(tables, name) if row.get("group", row.get("population")) in (None, "minority")]
        rows = [row for row in rows if row.get("method") == "pdpo_individual" and row.get("value", "0.5") == "0.5"]
        write_table(tmp_path, name, rows[:1])
    save(draw(tmp_path), tmp_path, draw.__name__)
    assert (tmp_path / f"{draw.__name__}.png").stat().st_size > 2_000


@draws
def test_the_same_tables_give_the_same_bytes(draw, tables, tmp_path):
    for folder in ("one", "two"):
        save(draw(tables), tmp_path / folder, "figure")
    for kind in ("png", "pdf"):
        assert (tmp_path / "one" / f"figure.{kind}").read_bytes() == (tmp_path / "two" / f"figure.{kind}").read_bytes()


def test_notebook_draws_every_figure_beside_the_others_and_keeps_a_record_of_its_own(tables, tmp_path):
    out = tmp_path / "figures"
    figures_step(NOTEBOOK, tables, out)
    assert {path.stem for path in out.glob("*.png")} == {draw.__name__ for draw in FIGURES}
    record = json.loads((out / "users" / "record.json").read_text())
    assert set(record["inputs"]) == {"notebook", *USER_TABLES}
    assert len(record["outputs"]) == 2 * len(FIGURES) + 1
    save(users.users_accuracy(tables), tmp_path, "here")
    assert (out / "users_accuracy.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    assert str(tmp_path) not in (out / "users.ipynb").read_text(encoding="utf-8")
