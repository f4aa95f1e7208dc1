"""The one table of how meaning looks: the fill, line and ink of every role, in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tracer.records.diagram import LineRole, RegionRole, Role, State

FONT = "Helvetica,Arial,DejaVu Sans,sans-serif"
MONO = "Menlo,Consolas,DejaVu Sans Mono,monospace"
TEXT_SIZE = 10.0
SMALL_SIZE = 9.0


@dataclass(frozen=True, slots=True)
class Look:
    """How a box is drawn: `style` is Graphviz's (`rounded`, `dashed`), `pen` the line's width."""

    fill: str
    line: str
    style: str = "filled,rounded"
    pen: float = 0.9
    shape: str = "box"


INK = "#1f2328"
FAINT_INK = "#57606a"
PALE_INK = "#8c959f"
FLOW_INK = "#0a58ca"
WRONG_INK = "#cf222e"
PAPER = "#ffffff"
ARROW = "#57605f"
ZERO_LINE = "#8c958f"
CUT_LINE = "#8c959e"
MODULE_LINE = "#afb8c1"
MODULE_FILL = "#fbfcfd"
LEAF_STRIP = "#dafbe0"

BOXES: dict[Role, Look] = {
    Role.OPERATION: Look("#f6f8fa", "#57606b"),
    Role.LEAF: Look("#dafbe1", "#1a7f37", pen=1.5),
    Role.HOOK: Look("#fff8c5", "#9a6700", style="filled", shape="box"),
    Role.CUSTOM: Look("#fbefff", "#8250df", pen=1.2),
    Role.WRAPPER: Look("#fdfdfe", "#8c959d"),
    Role.COMPILED: Look("#ddf4ff", "#0969da", pen=1.2),
    Role.SEED: Look("none", "none", style="", shape="plaintext"),
    Role.CUT: Look("#fffffe", "#afb8c0", style="filled,rounded,dashed"),
    Role.FOLDED: Look("#eff1f3", "#57606c", pen=1.2),
    Role.CARRY: Look("#fefefe", "#8c959c", style="rounded,dashed"),
}
"""A box by what it stands for; a hook also has square corners, a leaf a heavier line."""

REGIONS: dict[RegionRole, Look] = {
    RegionRole.MODULE: Look(MODULE_FILL, MODULE_LINE, style="rounded,filled"),
    RegionRole.GROUP: Look(PAPER, MODULE_LINE, style="rounded"),
    RegionRole.CUT: Look(PAPER, CUT_LINE, style="rounded,dashed"),
}
"""A frame by why its boxes stand together; a group's is empty, a cut's dashed."""

SCALE = ("#f4f8fe", "#deebfb", "#c3dbf8", "#a6caf4", "#8ab9f0")
"""Fills from little to much; printed in grey they still go from light to dark. All text on a shade
is in `INK`, but for the strips of leaves."""

KINDS = (
    "#dbe9fb", "#fde4cf", "#dcf2d9", "#f5dbe6", "#e6def8", "#f7efc6", "#d3efec", "#e5e7ea",
)  # fmt: skip
"""Fills of things that have no order; the last is for all others."""

INKS: dict[LineRole, str] = {
    LineRole.TITLE: INK,
    LineRole.DETAIL: FAINT_INK,
    LineRole.SUM: FLOW_INK,
    LineRole.GRAD: "#116329",
    LineRole.LEAF: "#116329",
    LineRole.HOOK: "#7d4e00",
    LineRole.NOTE: FAINT_INK,
    LineRole.ALARM: WRONG_INK,
}
"""A line of text by what it says; an alarm is bold too."""

DARK: dict[str, str] = {
    PAPER: "#0d1117", INK: "#e6edf3", FAINT_INK: "#9aa4b0", PALE_INK: "#7d8590",
    FLOW_INK: "#79b8ff", WRONG_INK: "#ff7b72", ARROW: "#8b949e", ZERO_LINE: "#6e7680",
    CUT_LINE: "#6e7681", MODULE_LINE: "#444c56", MODULE_FILL: "#11161d",
    "#f6f8fa": "#1c232c", "#57606b": "#6e7682", "#dafbe1": "#12291b", "#1a7f37": "#3fb950",
    "#fff8c5": "#2e2507", "#9a6700": "#d29922", "#fbefff": "#271a3d", "#8250df": "#a371f7",
    "#fdfdfe": "#161b22", "#8c959d": "#6e7683", "#ddf4ff": "#0b2540", "#0969da": "#4493f8",
    "#fffffe": "#0d1118", "#afb8c0": "#545d68", "#eff1f3": "#21262d", "#57606c": "#768390",
    "#8c959c": "#6e7684", "#fefefe": "#0d1119", "#dafbe0": "#12291a",
    "#f4f8fe": "#101c2b", "#deebfb": "#12294a", "#c3dbf8": "#143868", "#a6caf4": "#174886",
    "#8ab9f0": "#1b59a4", "#dbe9fb": "#132c4d", "#fde4cf": "#47290f", "#dcf2d9": "#153a1c",
    "#f5dbe6": "#451a2e", "#e6def8": "#2d2050", "#f7efc6": "#3d3508", "#d3efec": "#0d3a36",
    "#e5e7ea": "#2a2f36",
    "#116329": "#56d364", "#7d4e00": "#e3b341",
}  # fmt: skip
"""The dark counterpart of each colour above: in SVG the style sheet swaps them."""


def look_of(role: Role, state: State) -> Look:
    """How a box looks: its role's look, redrawn where something is wrong, zero or idle."""
    look = BOXES[role]
    if role is Role.SEED:
        return look
    if state is State.WRONG:
        return Look(look.fill, WRONG_INK, look.style, 2.0, look.shape)
    if state is State.ZERO:
        return Look(look.fill, ZERO_LINE, f"{look.style},dashed", look.pen, look.shape)
    if state is State.IDLE:
        return Look(PAPER, MODULE_LINE, f"{look.style},dotted", 0.9, look.shape)
    return look


def style_sheet(colors: Iterable[str]) -> str:
    """The CSS that shows these colours dark to a reader, or in a page, that asks for it.

    `prefers-color-scheme` decides, and a page's `data-theme` (`light`, `dark`) overrules it.
    """
    names = {color: f"--{color[1:]}" for color in colors}
    rules = "".join(
        f".tracer-picture [{paint}='{color}']{{{paint}:var({name},{color})}}"
        for color, name in names.items()
        for paint in ("fill", "stroke")
    )
    dark = ";".join(f"{name}:{DARK[color]}" for color, name in names.items())
    by_reader = f":root:not([data-theme=light]) .tracer-picture,:root.tracer-picture{{{dark}}}"
    by_page = f"[data-theme=dark] .tracer-picture{{{dark}}}"
    return f"{rules}@media (prefers-color-scheme:dark){{{by_reader}}}{by_page}"
