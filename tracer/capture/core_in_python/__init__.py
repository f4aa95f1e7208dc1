"""The compiled core's names and behaviour in Python, for machines where it could not be built.

Frames and entries are the same to the last byte. It costs several times as much, and where a Python
frame must stand between the user's line and PyTorch's, it keeps what the user sees as it would be:

- A warning names the user's line and counts for it: what calls into C runs under the caller's file,
  line and globals, and `warnings` passes over our other frames, as over the import system's.
- A traceback has no entry of ours, from Python 3.11 on.

What remains different: on Python 3.10 a traceback shows our frames between the caller's and the
callee's; a stack printed by other means (`traceback.print_stack`, anomaly mode) shows them, and so
do profilers and debuggers; recursion comes to its limit earlier; a profile of PyTorch's operations
holds those that read gradients; and `torch.compile` may compile less, or again.
"""

from tracer.capture.core_in_python.around import Around
from tracer.capture.core_in_python.door import RunBackward
from tracer.capture.core_in_python.known import setup
from tracer.capture.core_in_python.leaves import Book, Leaf, LeafProbe
from tracer.capture.core_in_python.mode import ModeCore, Op
from tracer.capture.core_in_python.modeless import Modeless
from tracer.capture.core_in_python.modules import ModuleCall, ModulePath, ModuleStack
from tracer.capture.core_in_python.overrides import Unoverridden
from tracer.capture.core_in_python.pass_here import enter_pass, pass_here
from tracer.capture.core_in_python.probes import NodeProbe, PassState
from tracer.capture.core_in_python.runs import RunCount
from tracer.capture.core_in_python.statistics import read_with
from tracer.capture.core_in_python.tape import Tape
from tracer.capture.core_in_python.walk import attach, detach, let_go, register_hook, walk

__all__ = [
    "Around", "Book", "Leaf", "LeafProbe", "ModeCore", "Modeless", "ModuleCall", "ModulePath",
    "ModuleStack", "NodeProbe", "Op", "PassState", "RunBackward", "RunCount", "Tape",
    "Unoverridden", "attach", "detach", "enter_pass", "let_go", "pass_here", "read_with",
    "register_hook", "setup", "walk",
]  # fmt: skip
