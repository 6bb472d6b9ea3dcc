"""What shows at a glance at frames: that nothing moves, that they are black, that they are over-bright.

Shapes: n frames that come together, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

STILL = 8
"""Of 255: what compression makes of a frame that stays as it is; a pixel that differs by more has changed."""
DARK, BRIGHT = 16, 239
"""Of 255: a pixel none of whose channels is above, or below. Video has these for black and white."""
BLACK_SHARE = 0.999  # of dark pixels in a black frame: a pointer or a bad pixel may be lit
BRIGHT_SHARE = 0.9  # of bright pixels in an over-bright one


@dataclass
class Looks:
    """What some frames of one episode look like.

    Attributes:
        count: frames so far.
        black: black ones among them.
        bright: over-bright ones.
        moves: whether one differs from the first.
        brightness: mean of each frame, 0..255.
    """

    count: int = 0
    black: int = 0
    bright: int = 0
    moves: bool = False
    brightness: list[float] = field(default_factory=list)
    _first: np.ndarray | None = None

    def take(self, frames: np.ndarray) -> None:
        """Look at further frames (n, H, W, 3) uint8, in order."""
        for frame in frames:
            if self._first is None:
                self._first = frame.astype(np.int16)
            self.count += 1
            self.black += bool((frame.max(axis=-1) <= DARK).mean() >= BLACK_SHARE)
            self.bright += bool((frame.min(axis=-1) >= BRIGHT).mean() >= BRIGHT_SHARE)
            self.moves = self.moves or bool((np.abs(frame - self._first) > STILL).any())
            self.brightness.append(float(frame.mean()))

    def faults(self) -> list[str]:
        """What is odd of: `still` (no frame differs from the first), `black`, `over-bright` (more than half are)."""
        odd = {
            "still": not self.moves,
            "black": 2 * self.black > self.count,
            "over-bright": 2 * self.bright > self.count,
        }
        return [name for name, found in odd.items() if found]
