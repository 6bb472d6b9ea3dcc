"""Scripted players for MinAtar's games, so that `noisy-expert` can record them.

A script looks into the game, not at its picture, and looks ahead only as far as what is on the court moves by rule.
Cells are (x, y) on a court of 10 x 10, y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

COURT = 10  # cells on a side
MOVES = {"n": (0, 0), "l": (-1, 0), "r": (1, 0), "u": (0, -1), "d": (0, 1)}
BALL_DOWN_RIGHT, BALL_DOWN_LEFT = 2, 3
LOOK_AHEAD = 14  # steps that Asterix is looked ahead
CROSSING = 40  # steps that Freeway is looked ahead
ROAD_COLUMN = 4  # where Freeway's player walks
BULLET_NEAR = 3  # rows below which a bullet of Space Invaders is dodged
LOW_OXYGEN = 60  # of 200: when Seaquest's submarine goes up for air

Cell = tuple[int, int]


def meet_the_ball(env: Any) -> int:
    """Breakout: go where a falling ball will land, follow one that rises."""
    game = env.game.env
    target = int(game.ball_x)
    if game.ball_dir in (BALL_DOWN_RIGHT, BALL_DOWN_LEFT):
        way = COURT - 1 - int(game.ball_y)
        path = (target + (way if game.ball_dir == BALL_DOWN_RIGHT else -way)) % (2 * COURT)
        target = min(path, 2 * COURT - 1 - path)  # walls turn the ball back on the same column
    return _action(env, "n" if target == game.pos else "l" if target < game.pos else "r")


def take_the_gold(env: Any) -> int:
    """Asterix: the shortest way to gold that no enemy crosses; without one, the way that stays safe longest."""
    game = env.game.env
    enemies, gold = _asterix_cells(game, is_gold=False), _asterix_cells(game, is_gold=True)

    def blocked(time: int, cell: Cell) -> bool:
        return cell in enemies[time] or cell in enemies[time + 1]

    def wanted(time: int, cell: Cell) -> bool:
        return cell in gold[time] or cell in gold[time + 1]

    def follow(cell: Cell) -> Iterable[tuple[str, Cell]]:
        for move, (step_x, step_y) in MOVES.items():
            yield move, (min(max(cell[0] + step_x, 0), COURT - 1), min(max(cell[1] + step_y, 1), COURT - 2))

    start = (int(game.player_x), int(game.player_y))
    return _action(env, _search(start, follow, blocked, wanted, LOOK_AHEAD, _middle))


def _middle(cell: Cell) -> float:
    """How far a cell is from where gold can be reached soonest."""
    return abs(cell[0] - 4.5) + abs(cell[1] - 4.5)


def _asterix_cells(game: Any, *, is_gold: bool) -> list[set[Cell]]:
    """Cells of enemies or gold at each coming moment; index 0 is now."""
    timer, cells = int(game.move_timer), []
    entities = [list(entity) for entity in game.entities if entity is not None and bool(entity[3]) == is_gold]
    for _ in range(LOOK_AHEAD + 2):
        cells.append({(int(entity[0]), int(entity[1])) for entity in entities})
        if timer == 0:
            timer = int(game.move_speed)
            for entity in entities:
                entity[0] += 1 if entity[2] else -1
        timer -= 1
    return cells


def _search(
    start: Cell,
    follow: Callable[[Cell], Iterable[tuple[str, Cell]]],
    blocked: Callable[[int, Cell], bool],
    wanted: Callable[[int, Cell], bool],
    depth: int,
    cost: Callable[[Cell], float],
) -> str:
    """First move of the shortest safe way to a wanted cell; else of a way that is safe longest and ends cheapest."""
    front: dict[Cell, str] = {start: ""}  # cells reachable at this moment, with the first move on the way
    for time in range(depth):
        after: dict[Cell, str] = {}
        for cell, first in front.items():
            for move, next_cell in follow(cell):
                if next_cell in after or blocked(time, next_cell):
                    continue
                after[next_cell] = first or move
                if wanted(time, next_cell):
                    return first or move
        if not after:
            break
        front = after
    return front[min(front, key=cost)] or "n"


def cross_between_cars(env: Any) -> int:
    """Freeway: the quickest way up that no car meets; waits where there is none."""
    game = env.game.env
    cars = [[int(number) for number in car] for car in game.cars]
    rows: list[list[bool]] = []  # [step][row]: a car on the player's column before or after it moves
    for _ in range(CROSSING):
        hit = [False] * COURT
        for car in cars:
            hit[car[1]] |= car[0] == ROAD_COLUMN
            if car[2] == 0:
                car[2] = abs(car[3])
                car[0] = (car[0] + (1 if car[3] > 0 else -1)) % COURT
                hit[car[1]] |= car[0] == ROAD_COLUMN
            else:
                car[2] -= 1
        rows.append(hit)
    front = {(int(game.pos), int(game.move_timer)): ""}
    for hit in rows:
        after: dict[Cell, str] = {}
        for (row, timer), first in front.items():
            for move, step in (("u", -1), ("n", 0), ("d", 1)):
                if step and timer:
                    continue
                target = min(max(row + step, 0), COURT - 1)
                if target == 0:
                    return _action(env, first or move)
                state = (target, max(0, (3 if step else timer) - 1))
                if not hit[target] and state not in after:
                    after[state] = first or move
        if not after:
            return _action(env, "u")
        front = after
    return _action(env, front[min(front)])


def shoot_and_dodge(env: Any) -> int:
    """Space Invaders: step out from under bullets that are near, else shoot what stands above, else go there."""
    game = env.game.env
    position = int(game.pos)
    near = game.e_bullet_map[COURT - 1 - BULLET_NEAR :].any(axis=0)

    def safe(column: int) -> bool:
        return 0 <= column < COURT and not near[column] and not game.alien_map[COURT - 1, column]

    if not safe(position):
        sides = sorted((position - 1, position + 1), key=lambda column: abs(column - COURT / 2))
        aside = next((column for column in sides if safe(column)), position)
        return _action(env, "l" if aside < position else "r" if aside > position else "f")
    columns = [column for column in range(COURT) if game.alien_map[:, column].any()]
    target = min(columns, key=lambda column: abs(column - position), default=position)
    if target == position and game.shot_timer == 0:
        return _action(env, "f")
    step = (target > position) - (target < position)
    return _action(env, {-1: "l", 0: "n", 1: "r"}[step] if safe(position + step) else "n")


def hunt_and_surface(env: Any) -> int:
    """Seaquest: keep out of enemies' way, shoot those ahead, fetch divers, and go up for air with one on board."""
    game = env.game.env
    x, y = int(game.sub_x), int(game.sub_y)
    enemies = [*game.e_fish, *game.e_subs]
    threats = [(int(entity[0]), int(entity[1]), 1 if entity[2] else -1) for entity in [*enemies, *game.e_bullets]]

    def safe(cell: Cell) -> bool:
        for threat_x, threat_y, way in threats:
            ahead = (cell[0] - threat_x) * way
            if threat_y == cell[1] and -1 <= ahead <= 2:
                return False
        return cell[1] > 0 or y == 0 or game.diver_count > 0

    def reach(move: str) -> Cell:
        step_x, step_y = MOVES[move]
        return min(max(x + step_x, 0), COURT - 1), min(max(y + step_y, 0), COURT - 2)

    ahead = [entity for entity in enemies if entity[1] == y and (entity[0] > x) == bool(game.sub_or) and entity[0] != x]
    if ahead and game.shot_timer == 0 and y > 0:
        return _action(env, "f")
    needs_air = game.diver_count > 0 and (game.oxygen < LOW_OXYGEN or game.diver_count == 6)
    if needs_air:
        goals = [(x, 0)]
    elif game.divers and game.diver_count < 6:
        goals = [(int(diver[0]), int(diver[1])) for diver in game.divers]
    else:
        goals = [(int(entity[0] - (4 if entity[2] else -4)), int(entity[1])) for entity in enemies] or [(5, 4)]
    goal = min(goals, key=lambda cell: abs(cell[0] - x) + abs(cell[1] - y))

    def cost(move: str) -> tuple[bool, float, bool]:
        cell = reach(move)
        return not safe(cell), abs(cell[0] - goal[0]) + abs(cell[1] - goal[1]), move != "n"

    return _action(env, min(MOVES, key=cost))


def _action(env: Any, move: str) -> int:
    """A move's number among the actions that the environment offers; nothing is done where it is not offered."""
    game, offered = env.game, list(env.action_set)
    found = game.env.action_map.index(move)
    return offered.index(found if found in offered else game.env.action_map.index("n"))
