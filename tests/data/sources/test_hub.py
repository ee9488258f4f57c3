import sys
import types

import pytest

from rlphf.data.sources.hub import read
from rlphf.errors import InputError


def torn():
    """A data set whose second record cannot be decoded."""
    yield {"q": "Why?", "chosen": "yes", "rejected": "no"}
    raise ValueError("Feature type 'Listing'\nnot found")


@pytest.fixture
def asked(monkeypatch):
    """Stand in for the package `datasets`; collect what was asked for."""
    calls = []

    def load_dataset(path, configuration, split):
        calls.append((path, configuration, split))
        if path == "away":
            raise ConnectionError("Couldn't reach\nthe hub")
        if path == "torn":
            return torn()
        return [{"q": "Why?", "chosen": "yes", "rejected": "no"}, {"q": 3}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_a_data_set_is_read_with_mapped_columns_and_places(asked):
    pair, bad = read("owner/name", {"prompt": "q", "chosen": "chosen"}, "P1A", None)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.preference) == ("Why?", "yes", "no", "P1A")
    assert bad.error().args[0].startswith("owner/name, record 2, field q: expected text, got int")
    assert asked == [("owner/name", None, "train")]


def test_configuration_and_split_are_passed_on(asked):
    list(read("owner/name:comparisons", {"prompt": "q"}, None, "validation"))
    assert asked == [("owner/name", "comparisons", "validation")]


def test_a_data_set_that_cannot_be_had_is_one_line_that_says_what_to_do(asked):
    with pytest.raises(InputError, match=r"^away: .*\(Couldn't reach the hub\); check the name, the split and the network"):
        list(read("away", {}, None, None))


def test_a_record_that_cannot_be_decoded_is_one_line_as_well(asked):
    with pytest.raises(InputError, match=r"^torn: the record after 1 cannot be read \(Feature type 'Listing' not found\)"):
        list(read("torn", {"prompt": "q"}, None, None))


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="needs the package `datasets`; install it"):
        list(read("owner/name", {}, None, None))
