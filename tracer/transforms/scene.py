"""What the boxes and arrows of one picture share: a pass, and what else there is to say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tracer.records import words
from tracer.records.events import GradRead
from tracer.records.graph import Edge, Site
from tracer.records.passes import PassView
from tracer.records.tensors import Gradient
from tracer.transforms.leaf_stories import LeafStory
from tracer.transforms.shares import Shares, scaled


@dataclass(frozen=True, slots=True)
class Scene:
    """What the boxes of one picture share: the pass, the leaves' stories, when hooks were removed,
    which nodes' `.grad` was read in vain, which sites ran more than once, whether to list what
    nodes save, and, of paths between two places, what came along them."""

    view: PassView
    titles: words.Titles
    main_file: str
    stories: dict[int, LeafStory]
    removed: dict[int, Site | None] = field(default_factory=dict)
    reads: dict[int, GradRead] = field(default_factory=dict)
    repeated: frozenset[int] = frozenset()
    with_saved: bool = False
    shares: Shares = field(default_factory=dict)
    paths_over: Mapping[Edge, int] = field(default_factory=dict)

    def place(self, site: Site | None) -> str:
        """`line 7`, or `model.py:7` in another file than the script's."""
        return words.place(site, beside=self.main_file)

    def flowed(self, edge: Edge) -> Gradient | None:
        """What flowed over an edge; of paths, the part that came along them where it is known."""
        return scaled(self.view.contribution(edge), self.shares.get(edge.source, 1.0))

    def is_mixed(self, edge: Edge) -> bool:
        """Whether that holds what came from elsewhere, which cannot be told apart."""
        return self.shares.get(edge.source, 1.0) is None
