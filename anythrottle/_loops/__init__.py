"""The event loop: parking and waking its tasks, its clock, and which one this is."""
