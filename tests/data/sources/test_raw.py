import pytest

from rlphf.data.sources.raw import Bad, BadField, Pair, Place, convert, number, text

PLACE = Place("a.jsonl", "line", 3)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"b": 1}, "is missing; the record has b"),
        ({}, "is missing; the record has no fields"),
        ({"a": None}, "expected text, got null"),
        ({"a": 1.5}, "expected text, got float"),
        ({"a": float("nan")}, "expected text, got float"),
        ({"a": ["x"]}, "expected text, got list"),
        ({"a": "broken \udc80"}, "is not valid UTF-8"),
        ({"a": "half a pair \ud83d"}, "is not valid UTF-8"),
        ({"a": " \n"}, "is empty"),
        ({"a": "\u200b\ufe0f \u2060"}, "is empty"),
    ],
)
def test_a_field_that_is_no_text_is_bad_with_its_reason(record, reason):
    with pytest.raises(BadField, match=f"^{reason}$") as caught:
        text(record, "a", blank=False)
    assert caught.value.field == "a"


def test_text_is_stripped_and_otherwise_as_it_was():
    assert text({"a": "\n\n naïve \u2028 \U0001f600\t "}, "a") == "naïve \u2028 \U0001f600"
    assert text({"a": " "}, "a") == ""


@pytest.mark.parametrize("value", ["", "x", None, True, [1], float("nan"), "inf", "1e999"])
def test_what_is_no_finite_number_is_bad(value):
    with pytest.raises(BadField):
        number({"a": value}, "a")


def test_numbers_may_be_written_out_as_csv_has_them():
    assert [number({"a": value}, "a") for value in (1, 1.5, "1.5", " 2 ")] == [1.0, 1.5, 1.5, 2.0]


def test_convert_passes_bad_rows_on_and_turns_bad_fields_into_bad_records():
    def make(place, record):
        return Pair(place, text(record, "q"), "a", "b", "P1A")

    before = Bad(PLACE, "", "broken", "")
    first, second, third = convert([before, (PLACE, {"q": 1}), (PLACE, {"q": "why"})], make)
    assert first is before
    assert (second.field, second.reason, second.record) == ("q", "expected text, got int", '{"q": 1}')
    assert third.prompt == "why"


def test_the_error_of_a_bad_record_is_one_line_with_file_line_field_and_what_to_do():
    message = str(Bad(PLACE, "q", "is\nmissing", "").error())
    assert message == "a.jsonl, line 3, field q: is missing; correct it, or set data.on_bad_record: quarantine"
    assert str(Bad(PLACE, "", "is missing", "").error("write it")) == "a.jsonl, line 3: is missing; write it"
