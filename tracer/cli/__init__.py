"""The `tracer` command: arguments in; text on the terminal, files and an exit status out."""


def main() -> None:
    """Run the `tracer` command and exit with its status."""
    from tracer.cli.program import run  # a recorded script loads this package, and needs no click

    run()
