"""One training loop for all stages: settings, schedule, state, sinks, watch."""
