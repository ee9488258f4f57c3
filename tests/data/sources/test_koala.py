from rlphf.data.sources.koala import read
from rlphf.data.sources.raw import Bad


def test_prompts_are_read_without_their_ids_and_blank_ones_are_bad(write):
    rows = [{"id": "0", "prompt": " Why? "}, {"id": "1", "prompt": " "}, {"id": "2"}]
    first, *bad = read(write("koala.json", rows))
    assert first.prompt == "Why?" and first.topic is None
    assert [b.reason for b in bad if isinstance(b, Bad)] == ["is empty", "is missing; the record has id"]
