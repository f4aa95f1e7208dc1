"""The trace file, without torch."""
