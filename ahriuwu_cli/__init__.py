"""Train a game-playing agent inside its own dream: the Dreamer 4 road as one command-line tool."""

__version__ = "0.1.0"
