"""Pure arithmetic of limits: time comes in as an argument, nothing waits."""
