"""The built-in game: bricks, a ball and a paddle on a 32x32 field, as a Gymnasium environment in NumPy."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ahriuwu_cli.core.errors import InputError

GAME_ID = "ahriuwu/Bricks-v0"
NOOP, LEFT, RIGHT = 0, 1, 2

FIELD = 32  # logical pixels, both ways
BALL = 2
BALL_SPEED = 2  # vertical pixels per frame; horizontal speed is one of -2, -1, 1, 2
BALL_START_Y = 13
PADDLE_WIDTH, PADDLE_Y, PADDLE_HEIGHT = 7, 29, 2
PADDLE_SPEED = 3  # pixels per frame
BRICK_ROWS, BRICK_COLUMNS, BRICK_WIDTH, BRICK_HEIGHT = 3, 8, 4, 2
WALL_TOP = 6
WALL_BOTTOM = WALL_TOP + BRICK_ROWS * BRICK_HEIGHT  # first row below the wall
EXPERT_DEAD_ZONE = 1  # the expert leaves the paddle alone when it is this close

# Horizontal speed after the paddle, by how far right of the paddle's left reach the ball lands (0..7).
DEFLECTION = (-2, -2, -1, -1, 1, 1, 2, 2)

BACKGROUND = (14, 16, 34)
BALL_COLOUR = (255, 255, 255)
PADDLE_COLOUR = (80, 230, 255)
ROW_COLOURS = ((240, 40, 60), (250, 170, 20), (50, 210, 70))


def register_game() -> None:
    """Make `gymnasium.make("ahriuwu/Bricks-v0")` known; does nothing the second time."""
    if GAME_ID not in gymnasium.registry:
        gymnasium.register(id=GAME_ID, entry_point="ahriuwu_cli.games.bricks:BricksEnv")


class BricksEnv(gymnasium.Env[np.ndarray, Any]):
    """Keep the ball in play and break bricks: +1 for each; the episode ends when the ball is lost.

    Observation: (size, size, 3) uint8 RGB. Actions: 0 noop, 1 left, 2 right. The start (ball
    column, horizontal direction and speed, paddle position) is drawn at reset; with `sticky` 0 the
    motion after it is a function of state and action alone. `info["expert_action"]`, at reset and
    at every step, is what the scripted expert does next; `info["events"]["bounce"]`, at every step, whether the
    paddle returned the ball. A cleared wall is built anew.

    Args:
        size: 32, or 64 for the same picture at twice the scale.
        max_steps: steps after which an episode is truncated.
        sticky: probability that the previous action is repeated instead of the given one.
        render_mode: None or "rgb_array".

    Raises:
        InputError: an option outside its range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (as in the base class)

    def __init__(
        self, size: int = 32, max_steps: int = 250, sticky: float = 0.0, render_mode: str | None = None
    ) -> None:
        _require(size in (FIELD, 2 * FIELD), f"size is {size}", f"{FIELD} or {2 * FIELD}")
        _require(max_steps >= 1, f"max_steps is {max_steps}", "at least 1")
        _require(0.0 <= sticky <= 1.0, f"sticky is {sticky}", "a probability in 0..1")
        _require(render_mode in (None, "rgb_array"), f"render_mode is {render_mode!r}", "none or 'rgb_array'")
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self._scale = size // FIELD
        self._max_steps = max_steps
        self._sticky = sticky
        self._bricks = np.zeros((BRICK_ROWS, BRICK_COLUMNS), bool)
        self._canvas = np.zeros((FIELD, FIELD, 3), np.uint8)  # background and standing bricks
        self._ball_x = self._ball_y = self._speed_x = self._speed_y = 0
        self._paddle_x = self._steps = self._last_action = 0
        self._returned = False  # by the paddle, in the last step

    def get_action_meanings(self) -> list[str]:
        """Names of the actions in order."""
        return ["noop", "left", "right"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed gives the same start. Returns frame (size, size, 3) and info."""
        super().reset(seed=seed)
        self._build_wall()
        self._ball_x = int(self.np_random.integers(0, FIELD - BALL + 1))
        self._ball_y = BALL_START_Y
        self._speed_x = (-2, -1, 1, 2)[int(self.np_random.integers(4))]
        self._speed_y = BALL_SPEED
        self._paddle_x = int(self.np_random.integers(0, FIELD - PADDLE_WIDTH + 1))
        self._steps = 0
        self._last_action = NOOP
        return self._draw(), {"expert_action": self._expert_action()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle, then the ball. Returns frame (size, size, 3), reward, terminated, truncated, info."""
        if self._sticky and self.np_random.random() < self._sticky:
            action = self._last_action
        self._last_action = int(action)
        self._move_paddle(self._last_action)
        reward = self._move_ball()
        self._steps += 1
        lost = self._ball_y > FIELD - BALL
        truncated = not lost and self._steps >= self._max_steps
        info = {"expert_action": self._expert_action(), "events": {"bounce": self._returned}}
        return self._draw(), reward, lost, truncated, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Give the current frame (size, size, 3) uint8 when made with render_mode "rgb_array", else None."""
        return self._draw() if self.render_mode == "rgb_array" else None

    # ------------------------------------------------------------ motion

    def _move_paddle(self, action: int) -> None:
        step = PADDLE_SPEED if action == RIGHT else -PADDLE_SPEED if action == LEFT else 0
        self._paddle_x = min(max(self._paddle_x + step, 0), FIELD - PADDLE_WIDTH)

    def _move_ball(self) -> float:
        """Advance the ball by one frame with at most one contact per axis; returns the reward."""
        x, self._speed_x = _reflect(self._ball_x + self._speed_x, self._speed_x)
        y = self._ball_y + self._speed_y
        reward, self._returned = 0.0, False
        if y < 0:
            y, self._speed_y = 0, BALL_SPEED
        brick = self._brick_at(x, y)
        if brick is not None:
            reward = 1.0
            if self._brick_at(x, self._ball_y) is not None:  # reached from the side
                x, self._speed_x = self._ball_x, -self._speed_x
            if self._brick_at(x, y) is not None:  # reached from below or above: rest against it
                row_top = WALL_TOP + brick[0] * BRICK_HEIGHT
                y = row_top + BRICK_HEIGHT if self._speed_y < 0 else row_top - BALL
                self._speed_y = -self._speed_y
            self._remove_brick(*brick)
        elif self._speed_y > 0 and self._ball_y + BALL <= PADDLE_Y < y + BALL:
            landed = x - (self._paddle_x - BALL + 1)
            if 0 <= landed < len(DEFLECTION):
                y, self._speed_y, self._speed_x = PADDLE_Y - BALL, -BALL_SPEED, DEFLECTION[landed]
                self._returned = True
        self._ball_x, self._ball_y = x, y
        if y >= WALL_BOTTOM and not self._bricks.any():
            self._build_wall()
        return reward

    def _brick_at(self, x: int, y: int) -> tuple[int, int] | None:
        """Find the standing brick (row, column) that a ball at (x, y) overlaps, the lowest and leftmost first."""
        if y >= WALL_BOTTOM or y + BALL <= WALL_TOP:
            return None
        for py in (y + BALL - 1, y):
            row = (py - WALL_TOP) // BRICK_HEIGHT
            if not 0 <= row < BRICK_ROWS:
                continue
            for px in (x, x + BALL - 1):
                if self._bricks[row, px // BRICK_WIDTH]:
                    return row, px // BRICK_WIDTH
        return None

    # ------------------------------------------------------------ expert

    def _expert_action(self) -> int:
        """Keep the paddle's middle under the ball."""
        off = self._ball_x + BALL // 2 - (self._paddle_x + PADDLE_WIDTH // 2)
        if abs(off) <= EXPERT_DEAD_ZONE:
            return NOOP
        return RIGHT if off > 0 else LEFT

    # ------------------------------------------------------------ picture

    def _build_wall(self) -> None:
        self._bricks[:] = True
        self._canvas[:] = BACKGROUND
        for row, colour in enumerate(ROW_COLOURS):
            top = WALL_TOP + row * BRICK_HEIGHT
            self._canvas[top : top + BRICK_HEIGHT] = colour

    def _remove_brick(self, row: int, column: int) -> None:
        self._bricks[row, column] = False
        top, left = WALL_TOP + row * BRICK_HEIGHT, column * BRICK_WIDTH
        self._canvas[top : top + BRICK_HEIGHT, left : left + BRICK_WIDTH] = BACKGROUND

    def _draw(self) -> np.ndarray:
        """Draw the picture of the current state, a new array (size, size, 3) uint8."""
        frame = self._canvas.copy()
        x, y = self._paddle_x, PADDLE_Y
        frame[y : y + PADDLE_HEIGHT, x : x + PADDLE_WIDTH] = PADDLE_COLOUR
        x, y = self._ball_x, self._ball_y
        frame[y : y + BALL, x : x + BALL] = BALL_COLOUR
        if self._scale == 1:
            return frame
        return frame.repeat(self._scale, axis=0).repeat(self._scale, axis=1)


def _reflect(x: int, speed: int) -> tuple[int, int]:
    """Bounce off the side walls; x is the ball's left column."""
    limit = FIELD - BALL
    if x < 0:
        return -x, -speed
    if x > limit:
        return 2 * limit - x, -speed
    return x, speed


def _require(fine: bool, found: str, expected: str) -> None:
    if not fine:
        raise InputError(f"{GAME_ID}: {found}; expected {expected}", hint="correct it in data.env_options")
