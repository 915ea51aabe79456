"""Jobs: where they come from, how they run under a limiter, where they go."""
