"""What comes after a small module stands below its leaves."""

from __future__ import annotations

from tests.builders import perceptron
from tracer.records.diagram import Arrow, Box, Diagram, Region, RegionRole, Role, Title
from tracer.render.ranks import spans
from tracer.transforms import diagram


def boxes(**roles: Role) -> tuple[Box, ...]:
    return tuple(Box(name, role, ()) for name, role in roles.items())


def test_the_way_out_of_a_layer_is_as_long_as_the_way_to_its_leaves() -> None:
    # from Addmm past T and the weight, in two of three layers: nothing comes after the last
    assert spans(diagram(perceptron(3), 1)) == {("n2", "n6"): 3, ("n7", "n11"): 3}


def test_a_module_without_leaves_holds_nothing_up() -> None:
    region = Region("m", RegionRole.MODULE, "relu", boxes=("a",))
    found = boxes(a=Role.OPERATION, b=Role.OPERATION)
    assert spans(Diagram(Title("f()"), found, (Arrow("a", "b"),), (region,))) == {}


def test_a_deep_module_holds_nothing_up() -> None:
    names = "abcdefgh"
    found = (*boxes(**dict.fromkeys(names, Role.OPERATION)), *boxes(w=Role.LEAF, z=Role.OPERATION))
    arrows = [Arrow(one, other) for one, other in zip(names, names[1:], strict=False)]
    arrows += [Arrow("h", "w"), Arrow("a", "z")]
    region = Region("m", RegionRole.MODULE, "block", boxes=(*names, "w"))
    assert spans(Diagram(Title("f()"), found, tuple(arrows), (region,))) == {}
