"""Records in, what a person looks at out.

- `dot.to_dot(diagram)`: the DOT text of a picture;
- `picture.draw_dot(dot, "svg")`: DOT text as SVG, PNG or PDF, with whichever Graphviz there is;
- `timeline.timeline_text(trace)`, `timeline.timeline_jsonl(trace)`: the story event by event;
- `table.summary(trace)`: what a trace holds, in a page that `rich` prints;
- `plot.plot_leaf(trace, leaf_id)`, `plot.sparkline(values)`: a leaf over passes;
- `like_torchviz.torchviz_dot(trace, pass_id)`: torchviz's own picture with our values on it.

Import the module you need: `graphviz` and `rich` are imported by those that use them.
"""
