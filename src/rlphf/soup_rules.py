"""The rules by which soups are merged, by name: what recipes and the settings share. What a rule does is in `soup.merge`."""

from typing import Literal

SoupRule = Literal["delta", "factor", "ties", "dare"]
# The rules that keep a share of each adapter's delta.
SPARSE: tuple[SoupRule, ...] = ("ties", "dare")
