"""The process of a document: the file that describes the job is its argument."""

from __future__ import annotations

import sys

from tracer.docgen.child import main

if __name__ == "__main__":
    main(sys.argv[1])
