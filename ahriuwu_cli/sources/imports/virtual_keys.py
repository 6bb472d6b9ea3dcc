"""Names of Windows' virtual key codes (Microsoft, "Virtual-Key Codes"), as recorders on Windows write them."""

from __future__ import annotations

from collections.abc import Iterable

from ahriuwu_cli.core.errors import InputError

NAMES = {
    0x08: "backspace",
    0x09: "tab",
    0x0D: "enter",
    0x10: "shift",
    0x11: "ctrl",
    0x12: "alt",
    0x13: "pause",
    0x14: "capslock",
    0x1B: "esc",
    0x20: "space",
    0x21: "pageup",
    0x22: "pagedown",
    0x23: "end",
    0x24: "home",
    0x25: "left",
    0x26: "up",
    0x27: "right",
    0x28: "down",
    0x2C: "printscreen",
    0x2D: "insert",
    0x2E: "delete",
    **{code: chr(code).lower() for code in (*range(0x30, 0x3A), *range(0x41, 0x5B))},
    0x5B: "lwin",
    0x5C: "rwin",
    **{0x60 + digit: f"num{digit}" for digit in range(10)},
    0x6A: "num*",
    0x6B: "num+",
    0x6D: "num-",
    0x6E: "num.",
    0x6F: "num/",
    **{0x6F + number: f"f{number}" for number in range(1, 25)},
    0x90: "numlock",
    0x91: "scrolllock",
    0xA0: "lshift",
    0xA1: "rshift",
    0xA2: "lctrl",
    0xA3: "rctrl",
    0xA4: "lalt",
    0xA5: "ralt",
    0xBA: ";",
    0xBB: "=",
    0xBC: ",",
    0xBD: "-",
    0xBE: ".",
    0xBF: "/",
    0xC0: "`",
    0xDB: "[",
    0xDC: "\\",
    0xDD: "]",
    0xDE: "'",
}
LARGEST = 255


def key_name(code: int) -> str:
    """The name of a key; its number where it has none."""
    return NAMES.get(code, f"key{code}")


def key_codes(names: Iterable[str]) -> list[int]:
    """The codes of keys by their names, whatever case these are in; each once, rising.

    Raises:
        InputError: there is no such key.
    """
    codes = {key_name(code): code for code in range(LARGEST + 1)}
    found = set()
    for name in names:
        if name.lower() not in codes:
            raise InputError(
                f"there is no key {name!a}",
                hint="keys are named like a, 5, space, lshift, f1, num0, left, or key255 by their code",
            )
        found.add(codes[name.lower()])
    return sorted(found)
