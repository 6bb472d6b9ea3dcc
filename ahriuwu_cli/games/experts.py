"""Scripted experts for games that say nothing of their own, so that `noisy-expert` can record them.

An expert looks into the environment, not at its picture: it makes recordings of a known quality and is never part
of an agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gymnasium.spaces import Discrete

from ahriuwu_cli.games.minatar_experts import (
    cross_between_cars,
    hunt_and_surface,
    meet_the_ball,
    shoot_and_dodge,
    take_the_gold,
)

Expert = Callable[[Any], int | None]
"""The unwrapped environment to the action that the expert takes next; None where it cannot look into it."""

TURN_LEFT, TURN_RIGHT, FORWARD = 0, 1, 2
HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # MiniGrid's directions 0..3 as (x, y)
FREEWAY_UP = 1
AIM = 1 / 32  # of the picture's width: how far from its middle ViZDoom's monster is hit


def expert_for(env_id: str) -> Expert | None:
    """The expert for environments whose id begins with one of the known prefixes."""
    return next((expert for prefix, expert in EXPERTS.items() if env_id.startswith(prefix)), None)


def cross_the_road(env: Any) -> int:
    """Freeway: walk up, whatever comes."""
    del env
    return FREEWAY_UP


def walk_round_obstacles(env: Any) -> int:
    """MiniGrid: the shortest way to the goal round what stands or burns in the way; turns left where there is none.

    Never walks into a cell that is occupied: obstacles and lava end an episode.
    """
    start = (int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir))
    came: dict[tuple[int, int, int], int] = {}  # state -> first action on the way to it
    queue = deque([start])
    seen = {start}
    while queue:
        x, y, heading = state = queue.popleft()
        cell = env.grid.get(x, y)
        if cell is not None and cell.type == "goal":
            return came.get(state, TURN_LEFT)  # standing on the goal: over
        step_x, step_y = HEADINGS[heading]
        following = {
            FORWARD: (x + step_x, y + step_y, heading),
            TURN_LEFT: (x, y, (heading - 1) % 4),
            TURN_RIGHT: (x, y, (heading + 1) % 4),
        }
        for action, after in following.items():
            if after in seen or (action == FORWARD and _occupied(env, after)):
                continue
            seen.add(after)
            came[after] = came.get(state, action)
            queue.append(after)
    return TURN_LEFT


def _occupied(env: Any, state: tuple[int, int, int]) -> bool:
    cell = env.grid.get(state[0], state[1])
    return cell is not None and cell.type != "goal"


def aim_and_shoot(env: Any) -> int | None:
    """ViZDoom Basic: step sideways until the monster is straight ahead, then shoot.

    Sees the monster only with `labels_buffer_enabled`, and presses one button at a time.
    """
    if not (env.game.is_labels_buffer_enabled() and isinstance(env.action_space, Discrete)):
        return None
    buttons = [button.name for button in env.game.get_available_buttons()]
    width = env.game.get_screen_width()
    ahead = [
        (label.x + label.width / 2) / width - 0.5
        for label in (env.state.labels if env.state is not None else [])  # no state: over
        if label.object_name != "DoomPlayer"
    ]
    wanted = [0] * len(buttons)
    if ahead:
        button = "ATTACK" if abs(ahead[0]) <= AIM else "MOVE_RIGHT" if ahead[0] > 0 else "MOVE_LEFT"
        wanted[buttons.index(button)] = 1
    return [list(pressed) for pressed in env.button_map].index(wanted)


EXPERTS: dict[str, Expert] = {
    "ALE/Freeway": cross_the_road,
    "MinAtar/Asterix": take_the_gold,
    "MinAtar/Breakout": meet_the_ball,
    "MinAtar/Freeway": cross_between_cars,
    "MinAtar/Seaquest": hunt_and_surface,
    "MinAtar/SpaceInvaders": shoot_and_dodge,
    "MiniGrid-Dynamic-Obstacles": walk_round_obstacles,
    "MiniGrid-LavaCrossing": walk_round_obstacles,
    "MiniGrid-LavaGap": walk_round_obstacles,
    "VizdoomBasic-v": aim_and_shoot,
}
