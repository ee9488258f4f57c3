"""Claims about what a reader of the explorer sees, in Chromium without a network."""

import json
import re
from itertools import cycle, islice

import pytest
from tests.explorer.conftest import HOSTILE

from rlphf.explorer.page import page as build_page

pytestmark = pytest.mark.browser

CARDS = (
    "[...document.querySelectorAll('.card')]"
    ".map(card => [card.querySelector('h3').textContent, card.querySelector('.said').textContent])"
)
LISTED = "[...document.querySelectorAll('#list button')].map(button => button.firstChild.textContent)"
CURRENT = "document.querySelector('#list [aria-current]').firstChild.textContent"
PROMPT = "document.getElementById('prompt').textContent"
IN_SIGHT = (
    "[document.getElementById('list'), document.querySelector('#list [aria-current]')].map(e => e.getBoundingClientRect())"
    ".reduce((list, item) => list.top <= item.top && item.bottom <= list.bottom + 1)"
)


@pytest.fixture
def opened(browser, page):
    """The page, opened anew in a wide window; at the end it has reported nothing and asked for nothing."""
    browser.window(1280, 900)
    browser.open(page)
    yield browser
    assert browser.errors == []
    assert [address for address in browser.requests if not address.startswith(("file:", "data:"))] == []


def content(page):
    """What the page was given."""
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def answer(shown, cells, prompt, **which):
    """The first answer to a prompt in the cell that `which` names."""
    (cell,) = [c for c in shown[cells] if all(c[name] == value for name, value in which.items())]
    place = cell["prompts"].index(prompt) * cell["samples"]
    return shown["texts"][cell["texts"][place]]


def click(browser, selector):
    browser.run(f"document.querySelector({selector!r}).click()")


def test_one_prompt_is_answered_by_every_method_side_by_side(opened, page):
    shown = content(page)
    cards = dict(opened.run(CARDS))
    assert list(cards) == [shown["labels"][name] for name in shown["methods"]]
    assert cards["P-SOUPS"] == answer(shown, "cells", 0, method="psoups", combination="P1A-P2A-P3A")
    tops = opened.run("[...document.querySelectorAll('.card')].map(card => card.getBoundingClientRect().top)")
    assert tops[0] == tops[1] == tops[2]
    assert opened.run(PROMPT) == opened.run(CURRENT) == shown["prompts"][0]["prompt"]


def test_bars_are_as_long_as_their_numbers(opened):
    rows = opened.run(
        "[...document.querySelectorAll('.scores tr')].map(row => [row.querySelector('i').getBoundingClientRect().width"
        " / row.querySelector('.bar').getBoundingClientRect().width, Number(row.lastChild.textContent)])"
    )
    assert len(rows) == 6 * 5 and len({value for _, value in rows}) > 3
    assert all(width == pytest.approx(value, abs=0.011) for width, value in rows)


def test_switches_change_the_answers_and_the_address(opened, page):
    shown = content(page)
    click(opened, "input[name=expertise][value=P1B]")
    click(opened, "input[name=style][value=P3B]")
    expected = answer(shown, "cells", 0, method="psoups", combination="P1B-P2A-P3B")
    assert dict(opened.run(CARDS))["P-SOUPS"] == expected
    assert opened.run("location.hash").startswith("#for=P1B-P2A-P3B&")
    assert opened.run("document.activeElement.value") != "P1A"
    # The backbone is told nothing, so its answer serves every combination.
    assert dict(opened.run(CARDS))["VB"] == answer(shown, "cells", 0, method="vb", combination="")


def test_a_user_is_answered_by_the_methods_that_serve_users(opened, page):
    shown = content(page)
    click(opened, "input[name=who][value=user]")
    assert [name for name, _ in opened.run(CARDS)] == ["SFT", "P-SOUPS inferred"]
    opened.run("select = document.getElementById('user'); select.value = '2'; select.dispatchEvent(new Event('change'))")
    prompt = shown["prompts"][int(opened.run("document.querySelector('#list [aria-current]').parentNode.dataset.prompt"))]
    expected = answer(shown, "user_cells", shown["prompts"].index(prompt), method="sft", user=2)
    assert dict(opened.run(CARDS))["SFT"] == expected
    assert "user=2" in opened.run("location.hash") and "expert 1.00" in opened.run("document.getElementById('asked').textContent")


def test_a_page_of_users_alone_begins_with_the_first_and_offers_no_combination(opened, page):
    opened.open(page.with_name("users.html"))
    shown = content(page.with_name("users.html"))
    assert opened.run("document.querySelectorAll('#switches input').length") == 0
    assert opened.run("document.getElementById('user').value") == "1"
    assert dict(opened.run(CARDS))["SFT"] == answer(shown, "user_cells", 0, method="sft", user=1)
    views = "[...document.querySelectorAll('.views a')].filter(link => !link.hidden).map(link => link.dataset.view)"
    assert opened.run(views) == ["answers", "soups"]
    click(opened, "[data-view=soups]")
    assert opened.run("document.querySelector('.card h3').textContent").startswith("User ")


def test_keys_go_from_prompt_to_prompt_and_to_the_search(opened):
    listed = opened.run(LISTED)
    seen = [opened.run(PROMPT)]
    for key in ("j", "ArrowRight", "k", "ArrowLeft", "ArrowLeft"):
        opened.press(key)
        seen.append(opened.run(PROMPT))
    assert seen == [listed[i] for i in (0, 1, 2, 1, 0, 0)]
    opened.run("document.querySelector('#list button').focus()")
    opened.press("ArrowDown")
    assert opened.run("document.activeElement.firstChild.textContent") == opened.run(CURRENT) == listed[1]
    opened.run("document.querySelector('#list li:last-child button').click()")
    assert opened.until(IN_SIGHT)
    opened.press("/")
    assert opened.run("document.activeElement.id") == "search"
    opened.press("j")
    assert opened.run("document.activeElement.value") == "j"


def test_tab_goes_through_the_page_in_reading_order_with_a_visible_focus(opened):
    found = []
    for _ in range(6):
        opened.press("Tab")
        found.append(
            opened.run(
                "[document.activeElement.id || document.activeElement.dataset.view || document.activeElement.textContent,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert [name for name, _ in found] == ["skip", "answers", "soups", "curves", "search", "spread"]
    assert {outline for _, outline in found} <= {"solid", "auto"}


def type_search(browser, text):
    browser.run(f"search = document.getElementById('search'); search.value = {text!r}; search.dispatchEvent(new Event('input'))")


def test_search_and_disagreement_narrow_the_list(opened, page):
    everything = opened.run(LISTED)
    type_search(opened, everything[5][-8:].upper())
    found = opened.run(LISTED)
    assert 0 < len(found) < len(everything) and all(text.endswith(everything[5][-8:]) for text in found)
    assert opened.run(PROMPT) in found
    type_search(opened, "")
    opened.run("range = document.getElementById('spread'); range.value = 0.7; range.dispatchEvent(new Event('input'))")
    gaps = opened.run("[...document.querySelectorAll('#list .gap')].map(gap => gap.textContent)")
    assert all(gap.startswith("spread ") for gap in gaps)
    gaps = [float(gap.removeprefix("spread ")) for gap in gaps]
    assert 0 < len(gaps) < len(everything) and min(gaps) >= 0.7
    type_search(opened, "no question says this")
    assert opened.run("document.getElementById('cards').textContent").startswith("No prompt is left")


def test_methods_can_be_left_out(opened):
    click(opened, "#methods input[value=rlhf]")
    assert "RLHF" not in dict(opened.run(CARDS)) and "without=rlhf" in opened.run("location.hash")


def test_an_address_brings_back_what_was_seen_and_nonsense_in_it_is_passed_over(opened, page):
    for selector in ("input[name=style][value=P3B]", "#methods input[value=vb]", "#next"):
        click(opened, selector)
    before, address = opened.run(CARDS), opened.run("location.hash")
    opened.open(page, address)
    assert opened.run(CARDS) == before and opened.run("location.hash") == address
    opened.open(page, "#view=%3Cb%3E&for=P9Z-x&user=99&prompt=none&response=0.5&spread=7&weights=a~b~c+off+P3A~P9~2")
    assert len(opened.run(CARDS)) == 6
    opened.run("location.hash = '#for=P1B-P2A-P3A'")
    assert opened.run("new Promise(done => setTimeout(() => done(document.querySelector('[value=P1B]').checked), 50))")


def test_a_slider_shows_the_nearest_decoded_recipe(opened, page):
    shown = content(page)
    click(opened, "[data-view=soups]")
    cards = opened.run(CARDS)
    assert cards[0] == ["Between two policies", answer(shown, "cells", 0, method="front", combination="0.500")]
    opened.run("range = document.getElementById('share-1'); range.value = 0.9; range.dispatchEvent(new Event('input'))")
    said = opened.run("document.getElementById('nearest').textContent")
    assert (
        said == "You set concise 0.10, informative 0.90. Nearest decoded recipe: informative 1.00, 0.14 away from what you set."
    )
    assert opened.run(CARDS)[0][1] == answer(shown, "cells", 0, method="front", combination="1.000")
    for axis, share in ((0, 0), (1, 0), (2, 1)):
        opened.run(
            f"range = document.getElementById('share-{axis}'); range.value = {share}; range.dispatchEvent(new Event('input'))"
        )
    assert opened.run(CARDS)[0] == ["P1A P2A P3B", answer(shown, "cells", 0, method="psoups", combination="P1A-P2A-P3B")]
    assert "weights=P1A" in opened.run("location.hash")


def test_curves_are_drawn_with_a_text_for_those_who_do_not_see_them(opened):
    click(opened, "[data-view=curves]")
    drawn = (
        "new Promise(done => { const wait = () => {"
        " const charts = [...document.querySelectorAll('.chart')]"
        ".filter(chart => chart.querySelector('svg .mark-line path'));"
        " if (charts.length === 6) done(charts.map(chart => chart.getAttribute('aria-label')));"
        " else setTimeout(wait, 20); }; wait(); })"
    )
    labels = opened.run(drawn)
    assert labels[0].startswith("Reward by PPO's outer step. P1A elementary ends at")
    assert all(label.endswith(".") for label in labels) and len(set(labels)) == 6


def test_a_narrow_window_has_one_column_and_does_not_scroll_sideways(opened):
    for width in (360, 699):
        opened.window(width, 800)
        assert opened.run("document.documentElement.scrollWidth") <= width
        lefts = opened.run("[...document.querySelectorAll('.card')].map(card => card.getBoundingClientRect().left)")
        assert len(set(lefts)) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_what_they_stand_on(opened, dark):
    opened.window(1280, 900, dark)
    names = ["ink", "soft", "accent", "warn"]
    colour = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    colours = {name: opened.run(colour.format(name)) for name in (*names, "paper", "raised", "on-accent")}
    assert opened.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    pairs = [(name, ground) for name in names for ground in ("paper", "raised")] + [("on-accent", "accent")]
    assert {
        pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2)
        for pair in pairs
        if contrast(*(colours[n] for n in pair)) < 4.5
    } == {}


def contrast(first, second):
    """The contrast ratio of WCAG 2 between two colours #rrggbb."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_an_answer_that_would_be_markup_is_read_as_text(opened):
    assert dict(opened.run(CARDS))["VB"] == HOSTILE
    assert opened.run("document.title") != "taken" and opened.run("document.images.length") == 0
    assert ", cut off" in opened.run("document.querySelector('.card .size').textContent")


@pytest.mark.slow
def test_five_thousand_answers_are_there_in_two_seconds(browser, page, tmp_path):
    shown = content(page)
    (cell,) = [c for c in shown["cells"] if c["method"] == "psoups" and c["combination"] == "P1A-P2A-P3A"]
    few, many = len(cell["prompts"]), 500
    shown["prompts"] = [{**shown["prompts"][i % few], "id": str(i)} for i in range(many)]
    for c in shown["cells"]:
        numbers = list(islice(cycle(range(len(c["texts"]))), many))
        c["prompts"], c["cut"] = list(range(many)), []
        for name in ("texts", "tokens"):
            c[name] = [c[name][i] for i in numbers]
        # As if no two answers were alike.
        c["texts"] = [len(shown["texts"]) - 1 + i for i in range(1, many + 1)]
        shown["texts"] += [f"{i} {shown['texts'][i % 90]}" for i in range(many)]
        c["scores"] = {name: [values[i] for i in numbers] for name, values in c["scores"].items()}
    assert sum(len(c["texts"]) for c in shown["cells"]) >= 5000
    (tmp_path / "large.html").write_text(build_page(shown, []), encoding="utf-8")
    browser.window(1280, 900)
    assert browser.open(tmp_path / "large.html") < 2
    assert len(browser.run(CARDS)) == 6 and browser.errors == []
