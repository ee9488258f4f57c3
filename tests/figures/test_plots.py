import re

import numpy as np
import pytest
from matplotlib.text import Text

from rlphf.evaluate.table_files import read_table, write_table
from rlphf.figures import contests, plots
from rlphf.figures.style import point, save

FIGURES = (
    *(
        plots.curves,
        plots.adapters,
        plots.methods,
        plots.adapter_effects,
        plots.criteria,
        plots.tradeoff,
        plots.front,
        plots.costs,
    ),
    *(contests.win_rates, contests.judges, contests.release_bugs),
)


def texts(figure):
    return {text.get_text().replace("\N{MINUS SIGN}", "-") for text in figure.findobj(Text)}


def test_figures_carry_no_dates(tables, tmp_path):
    save(plots.adapters(tables), tmp_path, "adapters")
    assert b"CreationDate" not in (tmp_path / "adapters.pdf").read_bytes()
    assert not re.search(rb"tIME|Software|date:", (tmp_path / "adapters.png").read_bytes())


def test_a_failed_figure_leaves_no_file(tables, tmp_path, monkeypatch):
    figure = plots.adapters(tables)
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(figure, tmp_path, "adapters")
    assert not list(tmp_path.iterdir())


def test_every_cell_of_the_method_heat_maps_shows_its_value_and_interval(tables):
    shown = texts(plots.methods(tables))
    for row in (row for row in read_table(tables, "methods") if row["criterion"] in ("mean", "helpfulness")):
        assert f"{row['mean']:.2f}" in shown
        assert f"{row['ci_low']:.2f} to {row['ci_high']:.2f}" in shown


def test_adapter_effects_show_every_adapter_by_every_criterion(tables):
    figure = plots.adapter_effects(tables)
    assert figure.axes[0].images[0].get_array().shape == (8, 9)
    (image,) = figure.axes[0].images
    cells = {(row["preference"], row["criterion"]): row["delta"] for row in read_table(tables, "adapter_effects")}
    assert image.get_array()[2, 5] == cells["P2A", "P3B"]
    assert image.norm.vmin == -image.norm.vmax


def test_win_rates_end_in_the_average_over_the_opponents(tables):
    (image,) = contests.win_rates(tables).axes[0].images
    rows = [r for r in read_table(tables, "win_rates") if r["criterion"] == "majority"]
    rates = [r["rate_half_ties"] for r in rows if r["method_a"] == "pp"]
    assert image.get_array()[1, -1] == pytest.approx(np.mean(rates))
    assert np.ma.getmaskarray(image.get_array())[1, 1]


def test_every_judge_has_a_panel_with_its_own_verdicts(tables):
    panels = [axes for axes in contests.judges(tables).axes if axes.images and "Judge" in axes.get_title("left")]
    assert [axes.get_title("left") for axes in panels] == ["Judge: oracle", "Judge: gold"]
    rows = {(r["judge"], r["method_a"], r["method_b"], r["criterion"]): r for r in read_table(tables, "matrix")}
    for axes, judge in zip(panels, ("oracle", "gold"), strict=True):
        assert axes.images[0].get_array()[2, 1] == rows[judge, "psoups", "pp", "majority"]["rate_half_ties"]


def test_averages_of_judges_have_the_intervals_of_the_table(tables, tmp_path):
    write_table(tmp_path, "matrix", read_table(tables, "matrix"))
    known = {"criterion": "majority", "opponents": 3, "rate": 0.5, "paper_gpt4": None, "paper_humans": None}
    row = {"judge": "gold", "method": "pp", "rate_half_ties": 0.81, "ci_low": 0.71, "ci_high": 0.91, **known}
    write_table(tmp_path, "averages", [row])
    oracle, gold = (
        {text.get_text() for text in axes.texts} for axes in contests.judges(tmp_path).axes if "Judge" in axes.get_title("left")
    )
    assert "71%\N{EN DASH}91%" in gold and "71%\N{EN DASH}91%" not in oracle


def test_mistakes_are_drawn_with_their_effects_and_intervals(tables):
    figure = contests.release_bugs(tables)
    rows = [r for r in read_table(tables, "release_bugs") if r["against"] == "without it" and r["criterion"] == "mean"]
    left = figure.axes[0]
    assert np.allclose(left.get_lines()[0].get_xdata(), [row["effect"] for row in rows])
    assert np.allclose([s[0][0] for s in left.collections[0].get_segments()], [row["ci_low"] for row in rows])
    assert "random reward head: P-SOUPS" in texts(figure)


def test_bars_carry_the_intervals_of_the_table(tables):
    right = plots.adapters(tables).axes[1]
    segments = right.collections[0].get_segments()
    found = [(segment[0][0], segment[1][0]) for segment in segments]
    assert np.allclose(found, [(row["ci_low"], row["ci_high"]) for row in read_table(tables, "adapters")])


@pytest.mark.parametrize("draw", [name for name in FIGURES if name not in (plots.curves, plots.costs)])
def test_a_figure_with_intervals_says_so_itself(tables, draw):
    assert any("95 %" in text for text in texts(draw(tables)))


def test_curves_have_one_line_per_preference_and_named_axes_with_units(tables):
    axes = plots.curves(tables).axes
    assert sum(len(a.lines) for a in axes) == 3 * 8
    assert {a.get_ylabel() for a in axes if a.get_ylabel()} == set(plots.CURVES.values())
    styles = [(line.get_color(), line.get_linestyle()) for line in axes[2].lines]
    assert len(set(styles)) == len({colour for colour, _ in styles}) == len({style for _, style in styles}) == 4


def test_a_negative_zero_is_shown_as_zero(tables, tmp_path):
    rows = read_table(tables, "adapter_effects")
    write_table(tmp_path, "adapter_effects", [row | {"delta": -0.001} for row in rows])
    shown = texts(plots.adapter_effects(tmp_path))
    assert "+0.00" in shown
    assert "-0.00" not in shown


def test_a_user_s_own_matplotlib_settings_do_not_reach_the_figures(tables, tmp_path, monkeypatch):
    import matplotlib

    save(plots.adapters(tables), tmp_path, "plain")
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    save(plots.adapters(tables), tmp_path, "own")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "own.png").read_bytes()


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_one_preference_and_one_method_are_drawn_too(tables, tmp_path, draw):
    for stored in ("curves", "adapters", "reward_models", "adapter_effects", "methods", "budgets"):
        rows = read_table(tables, stored)
        write_table(tmp_path, stored, [r for r in rows if r.get("preference", "P1A") == "P1A" and r.get("method", "pp") == "pp"])
    for empty in ("win_rates", "matrix", "release_bugs", "front", "timings"):
        write_table(tmp_path, empty, [])
    save(draw(tmp_path), tmp_path, draw.__name__)
    assert (tmp_path / f"{draw.__name__}.png").stat().st_size > 2_000


def test_the_front_goes_through_the_scores_of_the_table(tables):
    left, right = plots.front(tables).axes
    rows = read_table(tables, "front")
    for line, criterion in zip(left.get_lines(), ("P2A", "P2B", "helpfulness"), strict=True):
        wanted = [(row["weight"], row["mean"]) for row in rows if row["criterion"] == criterion]
        assert np.allclose(line.get_xydata(), wanted)
    assert np.allclose(right.get_lines()[0].get_xdata(), [row["mean"] for row in rows if row["criterion"] == "P2A"])


def test_the_tradeoff_has_a_point_per_method(tables):
    (axes,) = plots.tradeoff(tables).axes
    rows = {(r["method"], r["criterion"]): r["mean"] for r in read_table(tables, "methods") if r["combination"] == "all"}
    points = {tuple(line.get_xydata()[0]) for line in axes.get_lines() if len(line.get_xydata()) == 1}
    assert {(rows[name, "mean"], rows[name, "helpfulness"]) for name, _ in rows} <= points


def test_costs_double_with_each_axis_for_all_combinations_and_grow_evenly_for_single_preferences(tables, tmp_path):
    seconds = {"psoups": 30.0, "pmorl": 80.0}
    blank = dict.fromkeys(("trainings", "pairs", "updates", "samples"), 0)
    write_table(tmp_path, "budgets", [{"method": name, "seconds": s, "answer_ms": None, **blank} for name, s in seconds.items()])
    write_table(tmp_path, "methods", read_table(tables, "methods"))
    write_table(tmp_path, "timings", [{"step": "ppo/pmorl", "seconds": 50.0, "peak_mb": 1.0}])
    (axes,) = plots.costs(tmp_path).axes
    single, joint = (line.get_ydata() for line in axes.get_lines()[::2])
    # Three axes were measured. Of P-MORL the policy alone doubles; its pairs and its reward model grow evenly.
    assert single[2] == 30 and joint[2] == 80 and np.allclose(np.diff(single), 10)
    assert joint[3] == 2 * 50 + 30 * 4 / 3 and joint[1] == 50 / 2 + 30 * 2 / 3


def test_points_of_criteria_are_the_pooled_scores_of_the_table_and_differ_by_more_than_colour(tables):
    rows = {(r["method"], r["criterion"]): r["mean"] for r in read_table(tables, "methods") if r["combination"] == "all"}
    expertise, _, style = plots.criteria(tables).axes
    names, points = ("vb", "pp", "psoups", "psoups_unprompted"), [drawn.lines[0] for drawn in expertise.containers]
    for name, line in zip(names, points, strict=True):
        assert np.allclose(line.get_ydata(), [rows[name, criterion] for criterion in ("P1A", "P1B")])
    assert len({line.get_marker() for line in points}) == len(names)
    assert [len(drawn.lines[0].get_ydata()) for drawn in style.containers] == 4 * [4]


def test_steps_are_whole_numbers_and_seconds_are_written_out(tables):
    assert all(float(tick).is_integer() for axes in plots.curves(tables).axes for tick in axes.get_xticks())
    (axes,) = plots.costs(tables).axes
    assert [axes.yaxis.get_major_formatter()(seconds) for seconds in (200, 5000)] == ["200", "5,000"]


def test_the_ends_and_the_middle_of_the_front_are_named_by_their_weights(tables):
    right = plots.front(tables).axes[1]
    weights = sorted({row["weight"] for row in read_table(tables, "front")})
    found = [text.get_text() for text in right.texts]
    assert found == [f"{weights[i]:.1f}" for i in (0, len(weights) // 2, len(weights) - 1)]


@pytest.mark.parametrize("draw", [plots.methods, contests.win_rates, contests.judges], ids=lambda draw: draw.__name__)
def test_heat_maps_are_readable_on_a_page(tables, draw):
    width, _ = draw(tables).get_size_inches()
    assert width <= 9


def test_a_reward_model_is_shown_on_pairs_that_it_has_not_learned_from(tables, tmp_path):
    models = read_table(tables, "reward_models")
    gold = [row | {"preference": "gold", "accuracy": 0.9 if row["split"] == "test" else 0.6} for row in models[:2]]
    write_table(tmp_path, "reward_models", [*models, *gold])
    write_table(tmp_path, "adapters", read_table(tables, "adapters"))
    widths = [bar.get_width() for bar in plots.adapters(tmp_path).axes[0].patches]
    assert widths[-1] == 0.6 and widths[:-1] == [row["accuracy"] for row in models if row["split"] == "test"]


def test_many_methods_differ_in_colour_or_mark_and_a_few_in_both() -> None:
    looks = [tuple(point(i).values()) for i in range(64)]
    assert len(set(looks)) == 64
    assert len({colour for colour, _ in looks[:8]}) == len({mark for _, mark in looks[:8]}) == 8
