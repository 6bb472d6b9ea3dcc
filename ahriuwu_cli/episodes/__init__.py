"""Stage one: episodes of play, the store they live in, environments and policies."""
