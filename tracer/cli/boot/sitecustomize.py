"""Found by Python as it starts under `tracer run`: undo what led to it, and watch for torch."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def put_environment_back() -> "tuple[str, str]":
    """Undo what `tracer run` did to variables and `sys.path`; return the job and the farewell."""
    sys.path[:] = [entry for entry in sys.path if entry != HERE]
    sys.path_importer_cache.pop(HERE, None)
    del os.environ["PYTHONPATH"]
    if "TRACER_RUN_PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.environ.pop("TRACER_RUN_PYTHONPATH")
    return os.environ.pop("TRACER_RUN"), os.environ.pop("TRACER_RUN_FAREWELL")


def read_watch() -> "dict[str, Any]":
    """Run the file beside this one as it is, so that no module of that name stays behind."""
    path = os.path.join(HERE, "watch.py")
    names: dict[str, Any] = {"__name__": "tracer.cli.boot.watch", "__file__": path}
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), names)
    return names


HERE = os.path.dirname(os.path.abspath(__file__))
names = read_watch()
names["begin"](names["TorchWatch"]("begin", *put_environment_back()))

# Make room for a sitecustomize of the user's own; without one this raises what Python expects.
del sys.modules["sitecustomize"]
__import__("sitecustomize")
