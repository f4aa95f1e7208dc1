"""`tracer run` beside `python`: the same output, byte for byte, and the same exit status.

None of these scripts imports torch, so they show what the launching alone does.
"""

from __future__ import annotations

import re
import signal
import sys
import zipfile

import pytest

from tests.cli.conftest import Prompt, Ran


def run_both(prompt: Prompt, *arguments: str, **more: object) -> Ran:
    """Run with `python` and with `tracer run`, assert that both do the same, and return what."""
    plain = prompt.python(*arguments, **more)  # type: ignore[arg-type]
    traced = prompt.tracer("run", "--quiet", *arguments, **more)
    assert without_addresses(traced) == without_addresses(plain)
    return plain


def without_addresses(ran: Ran) -> Ran:
    """Return the same with `0x…` for every address."""
    return Ran(ran.status, *(re.sub("0x[0-9a-f]+", "0x…", text) for text in (ran.out, ran.err)))


def test_main_is_the_module_that_python_makes(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        for name, value in sorted(globals().copy().items()):
            print(name, value if "loader" not in name else type(value))
    """,
    )
    assert "__package__ None" in run_both(prompt, "script.py").out


def test_the_process_looks_as_under_python(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import sys, os
        print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.warnoptions)
        print(sorted({*sys.modules, "atexit"}), sorted(sys.path_importer_cache))
        print(sorted(os.environ.items()), os.getcwd(), sys.stdin.isatty(), sys.executable)
    """,
    )
    assert "'--flag'" in run_both(prompt, "script.py", "--flag", "-o", "x", "--", "-m").out


@pytest.mark.parametrize("value", [None, "", "elsewhere"])
def test_pythonpath_is_the_users(prompt: Prompt, value: str | None) -> None:
    prompt.write(
        "script.py",
        """
        import os, sys
        print(os.environ.get("PYTHONPATH"), sys.path)
    """,
    )
    run_both(prompt, "script.py", env={"PYTHONPATH": value})


def test_no_frame_lies_under_the_script(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import sys, traceback, warnings
        traceback.print_stack()
        warnings.warn("further out than the script", stacklevel=3)
        print(sys._getframe().f_back)
        def dive(depth):
            try:
                return dive(depth + 1)
            except RecursionError:
                return depth
        print(dive(0))
    """,
    )
    assert run_both(prompt, "script.py").out.startswith("None\n")


@pytest.mark.parametrize(
    "ending",
    [
        "sys.exit()",
        "sys.exit(3)",
        "sys.exit(-1)",
        "sys.exit(True)",
        "sys.exit('a reason')",
        "sys.exit(('a', 'tuple'))",
        "raise SystemExit from ValueError(1)",
        "import os; os._exit(7)",
        "import os; os.abort()",
        "assert 1 == 2, 'no'",
        "exec('1 / 0')",
        "raise KeyError('key') from ValueError('cause')",
        "raise KeyboardInterrupt",
        "signal.raise_signal(signal.SIGINT)",
        "signal.raise_signal(signal.SIGTERM)",
        "(lambda f: f(f))(lambda f: f(f))",
        "sys.stdout.close()",
        "sys.stderr.close(); 1 / 0",
        "del sys.excepthook; 1 / 0",
        "sys.excepthook = lambda *a: print('mine', a[:2]); 1 / 0",
        "sys.excepthook = lambda *a: 1 / 0; {}['key']",
    ],
)
def test_it_ends_as_under_python(prompt: Prompt, ending: str) -> None:
    prompt.write(
        "script.py",
        f"""
        import signal, sys
        print("begun")
        def inner():
            {ending}
        def outer():
            inner()
        outer()
    """,
    )
    run_both(prompt, "script.py")


def test_ctrl_c_ends_it_by_the_signal(prompt: Prompt) -> None:
    prompt.write("script.py", "raise KeyboardInterrupt")
    assert run_both(prompt, "script.py").status == -signal.SIGINT


@pytest.mark.parametrize("text", ["x = (1\n", "if 1:\nx = 2\n", "x = 'a\nb'\n", "# coding: no\n"])
def test_a_syntax_error_is_shown_as_by_python(prompt: Prompt, text: str) -> None:
    (prompt.folder / "script.py").write_text(text)
    assert run_both(prompt, "script.py").status == 1


def test_chained_exceptions_show_only_the_script(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        def fail():
            try:
                {}["key"]
            except KeyError as error:
                try:
                    raise TypeError("second") from error
                except TypeError:
                    raise ValueError("third")
        import json
        try:
            json.loads("{")
        except ValueError:
            fail()
    """,
    )
    run_both(prompt, "script.py")


def test_exceptions_in_threads_and_finalizers(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import threading
        class Loud:
            def __del__(self):
                raise ValueError("unraisable")
        def fail():
            raise KeyError("in a thread")
        Loud()
        thread = threading.Thread(target=fail, name="worker")
        thread.start()
        thread.join()
    """,
    )
    result = run_both(prompt, "script.py")
    assert "Exception in thread worker" in result.err


def test_threads_and_atexit_end_in_pythons_order(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import atexit, threading, time
        atexit.register(print, "first registered")
        atexit.register(print, "second registered")
        def late():
            time.sleep(0.2)
            print("thread")
        threading.Thread(target=late).start()
        print("end of the script")
        raise ValueError
    """,
    )
    assert run_both(prompt, "script.py").out.splitlines() == [
        "end of the script",
        "thread",
        "second registered",
        "first registered",
    ]


def test_stdin_is_the_scripts(prompt: Prompt) -> None:
    prompt.write("script.py", "import sys; print(sys.stdin.read().upper())")
    assert run_both(prompt, "script.py", stdin="one\n二").out == "ONE\n二\n"


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_find_the_classes_of_main(prompt: Prompt, method: str) -> None:
    prompt.write(
        "script.py",
        f"""
        import multiprocessing, pickle
        class Point:
            x = 3
        def read(point):
            return point.x, type(point).__module__
        if __name__ == "__main__":
            print(pickle.loads(pickle.dumps(Point())).x)
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                print(pool.map(read, [Point()]))
    """,
    )
    result = run_both(prompt, "script.py")
    assert result.status == 0
    assert result.err == ""


def test_a_forked_child_that_ends_by_itself(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import os, sys
        child = os.fork()
        if child:
            print("child's status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            sys.exit(5)
    """,
    )
    assert run_both(prompt, "script.py").out == "child's status 5\n"


def test_a_python_started_by_the_script_is_a_plain_one(prompt: Prompt) -> None:
    prompt.write("inner.py", "import os, sys; print(sorted(os.environ), sorted(sys.modules))")
    prompt.write(
        "script.py",
        """
        import subprocess, sys
        print(subprocess.check_output([sys.executable, "inner.py"], text=True))
    """,
    )
    assert "TRACER" not in run_both(prompt, "script.py").out


TELL = "import sys; print(__name__, __file__, __package__, __spec__, sys.argv, sys.path)\n"


def test_a_folder_and_an_archive_run_as_with_python(prompt: Prompt) -> None:
    prompt.write("app/__main__.py", TELL)
    with zipfile.ZipFile(prompt.folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", TELL + "1 / 0\n")
    run_both(prompt, "app", "argument")
    run_both(prompt, "app.zip", "argument")


def test_modules_run_as_with_python_m(prompt: Prompt) -> None:
    prompt.write("alone.py", TELL)
    prompt.write("package/__init__.py", "")
    prompt.write("package/__main__.py", TELL)
    prompt.write("package/module.py", "from . import other\n" + TELL + "raise ValueError\n")
    prompt.write("package/other.py", "")
    for module in ("alone", "package", "package.module", "package.absent", "absent"):
        run_both(prompt, "-m", module, "--flag", "-m", "x")


def test_a_script_elsewhere_and_behind_a_link(prompt: Prompt) -> None:
    prompt.write("deep/neighbour.py", "print('found')\n")
    script = prompt.write("deep/中文.py", "import neighbour\n" + TELL)
    (prompt.folder / "link").symlink_to(script)
    run_both(prompt, "deep/中文.py")
    run_both(prompt, str(script))
    run_both(prompt, "link")


def test_a_sitecustomize_of_the_users_runs(prompt: Prompt) -> None:
    prompt.write("own/sitecustomize.py", "import sys; sys.mine = 'ran'\n")
    prompt.write("script.py", "import sys; print(sys.mine, sys.modules['sitecustomize'])\n")
    assert "ran <module" in run_both(prompt, "script.py", env={"PYTHONPATH": "own"}).out


def test_a_broken_sitecustomize_is_told_of_as_by_python(prompt: Prompt) -> None:
    prompt.write("own/sitecustomize.py", "import sys; 'script.py' in sys.orig_argv[1] and 1 / 0\n")
    prompt.write("script.py", "print('ran')\n")
    result = run_both(prompt, "script.py", env={"PYTHONPATH": "own"})
    assert "ZeroDivisionError" in result.err


@pytest.mark.parametrize(
    "failure", ["1 / 0", "raise ImportError('no library')", "import absent", "x ="]
)
def test_a_torch_that_cannot_be_imported_fails_as_under_python(
    prompt: Prompt, failure: str
) -> None:
    prompt.write("torch/__init__.py", f"def load():\n    {failure}\nload()\n")
    prompt.write(
        "script.py",
        """
        try:
            import torch
        except Exception:
            import traceback
            traceback.print_exc()
        from torch import nn
    """,
    )
    result = run_both(prompt, "script.py")
    assert "torch/__init__.py" in result.err


def test_a_script_without_torch_never_waits_for_it(prompt: Prompt) -> None:
    prompt.write("torch/__init__.py", "print('imported')")
    prompt.write(
        "script.py",
        """
        import importlib.util, sys
        spec = importlib.util.find_spec("torch")
        print(type(spec.loader), spec.origin, "torch" in sys.modules)
    """,
    )
    assert run_both(prompt, "script.py").out.endswith("False\n")


@pytest.mark.parametrize(
    "options", [("-W", "error"), ("-O",), ("-X", "dev"), ("-B", "-s"), ("-P",)]
)
def test_pythons_own_options_hold_for_the_script(prompt: Prompt, options: tuple[str, ...]) -> None:
    if options == ("-P",) and sys.version_info < (3, 11):
        options = ()
    prompt.write(
        "script.py",
        """
        import sys, warnings
        print(sys.flags, sys.path)
        assert False, "not under -O"
        warnings.warn("a warning")
    """,
    )
    run_both(prompt, "script.py", options=options)
