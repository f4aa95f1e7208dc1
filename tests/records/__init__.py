"""The plain records, without torch."""
