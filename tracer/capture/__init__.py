"""The only room that imports torch: watches forward operations, engine runs, hooks and `.grad`."""
