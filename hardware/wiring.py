"""Wiring: the drawing of what a board profile says is connected where, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hardware.board import Board
from hardware.header import I2C, SPI, SUPPLY, PinHeader
from hardware.host.errors import PlainError
from hardware.profile import Light

INK, SOFT, LINE, PAPER, SHEET = "#1a2326", "#4c5a5e", "#7d8a8c", "#faf8f4", "#ffffff"
TEAL, VIOLET, AMBER, SLATE = "#0b5d63", "#5f3a93", "#9a5b00", "#4c5a5e"
# Board outline, header pins, channel of wires, modules: all in pixels of a drawing 1200 wide.
_WIDTH, _TOP, _PITCH = 1200, 150, 40
_ODD_X, _EVEN_X, _EDGE_X = 130, 162, 206
_LABEL_X, _TRACK_X, _TRACKS_END = 218, 344, 560
_GATE_X, _MODULE_X, _MODULE_END = 590, 690, 1160


class NothingToWire(PlainError):
    """The board has no header."""

    exit_status = 2


@dataclass(frozen=True)
class Net:
    """One wire from the header: its pin, what it is called at both ends, and its colour."""

    pin: int
    label: str
    terminal: str
    colour: str

    @property
    def leaves_at(self) -> float:
        """Where it leaves the header: even pins straight on, odd pins between the rows."""
        row = (self.pin - 1) // 2
        return _TOP + 52 + row * _PITCH + (0 if self.pin % 2 == 0 else _PITCH / 2)


@dataclass(frozen=True)
class Module:
    """What wires end at: a lamp with its driver, a switch, a chip. `rows` of text stand under the title."""

    kind: str
    title: str
    rows: tuple[str, ...]
    nets: tuple[Net, ...]
    colour: str

    @property
    def height(self) -> int:
        return max(44, 24 * len(self.nets) + 8, 34 + 18 * len(self.rows))


def draw_wiring(board: Board) -> str:
    """The wiring of `board` as an SVG document. Raises NothingToWire."""
    header = board.connector
    if header is None:
        raise NothingToWire(f"The board '{board.name}' names no header, so there is nothing to wire.")
    modules = sorted(_modules(board, header), key=lambda module: min(net.leaves_at for net in module.nets))
    tops = _stack(modules)
    camera_top = tops[-1] + modules[-1].height + 20
    height = camera_top + 44 + 78
    parts = [_title(board), *_board_outline(board, camera_top + 44)]
    parts += _header_body()
    parts += _wires(modules, tops)
    parts += _header_pins({net.pin: net.colour for module in modules for net in module.nets})
    for module, top in zip(modules, tops, strict=True):
        parts += _draw_module(module, top, header)
    parts += _camera(board, camera_top)
    parts += _notes(board, header, height)
    return _document(board, height, parts)


def _modules(board: Board, header: PinHeader) -> list[Module]:
    def net(line: int, terminal: str, colour: str) -> Net:
        return Net(header.at[line], header.names[line], terminal, colour)

    modules = []
    for name, light in board.lights.items():
        if light.pin is not None:
            colour = VIOLET if light.is_uv else TEAL
            rows = _lamp_words(board, light)
            modules.append(Module("lamp", name, rows, (net(light.pin, "gate", colour),), colour))
    if board.interlocks is not None:
        for n, pin in enumerate(board.interlocks.shroud_pins, 1):
            rows = ("closed reads high; a cut wire reads open",)
            modules.append(Module("switch", f"Shroud switch {n}", rows, (net(pin, "contact", AMBER),), AMBER))
    if board.sensors is not None:
        nets = tuple(Net(pin, name, name, SLATE) for pin, name in I2C.items())
        modules.append(Module("chip", *_sensor_words(board), nets, SLATE))
    if board.key_store == "tpm2":
        nets = tuple(Net(pin, name, name, SLATE) for pin, name in SPI.items())
        modules.append(Module("chip", "TPM 2.0 on SPI", ("for the key of the vault",), nets, SLATE))
    return modules


def _lamp_words(board: Board, light: Light) -> tuple[str, ...]:
    dimming = f"dimmed at {light.pwm_hz / 1000:g} kHz" if light.pwm_hz else "on or off"
    driver = f"{light.driver or 'driver'}, {light.current_ma} mA, {dimming}"
    if not light.is_uv:
        return (driver,)
    irradiance = light.irradiance_w_m2 or 0.0
    shot = board.interlocks.one_shot_s if board.interlocks else 0.0
    return (
        driver,
        f"{light.wavelength_nm} nm, {irradiance:g} W/m² at the eye plane",
        f"24 V through a one-shot (≤ {shot:g} s), two switches, both",
        "shroud contacts and a cut-out: see uv-interlock.svg",
    )


def _sensor_words(board: Board) -> tuple[str, tuple[str, ...]]:
    sensors = board.sensors
    if sensors is None:
        return "", ()
    rows = (
        f"A{sensors.photodiode.channel}  {sensors.photodiode.part}",
        f"A{sensors.lamp_current.channel}  lamp current: {sensors.lamp_current.part}",
        f"A{sensors.lamp_temperature.channel}  lamp temperature: {sensors.lamp_temperature.part}",
        "100 kΩ to ground at each input: a torn wire reads 0 V",
    )
    adc = sensors.adc
    return f"{adc.driver.upper()} at 0x{adc.address:02x}, I²C bus {adc.bus}", rows


def _stack(modules: Sequence[Module]) -> list[int]:
    """The top of each module, one under the other beside the header."""
    tops, top = [], _TOP
    for module in modules:
        tops.append(top)
        top += module.height + 20
    return tops


def _terminals(module: Module, top: float) -> list[float]:
    if len(module.nets) == 1:
        return [top + 22.0]
    first = top + (module.height - 24 * (len(module.nets) - 1)) / 2
    return [first + 24 * n for n in range(len(module.nets))]


def _wires(modules: Sequence[Module], tops: Sequence[int]) -> list[str]:
    """Each wire from its pin to its module; tracks are chosen so that neighbours do not cross."""
    ends = [
        (net, y)
        for module, top in zip(modules, tops, strict=True)
        for net, y in zip(module.nets, _terminals(module, top), strict=True)
    ]
    ends.sort(key=lambda end: end[0].leaves_at)
    step = (_TRACKS_END - _TRACK_X) / max(len(ends) - 1, 1)
    parts = []
    for n, (net, y) in enumerate(ends):
        out = net.leaves_at
        # Wires that go down turn the later the further up they start; wires that go up, the other way round.
        track = _TRACK_X + step * (len(ends) - 1 - n if y > out else n)
        odd = net.pin % 2
        start = f"M{_ODD_X} {out - _PITCH / 2:g} L{_ODD_X + 14} {out:g}" if odd else f"M{_EVEN_X} {out:g}"
        bend = 8 if abs(y - out) > 16 else abs(y - out) / 2
        down = bend if y > out else -bend
        run = (
            f"H{track - bend:g} q{bend:g} 0 {bend:g} {down:g} V{y - down:g} "
            f"q0 {down:g} {bend:g} {down:g} H{_MODULE_X}"
        )
        parts.append(f'<path class="halo" d="M{_LABEL_X} {out:g} {run}"/>')
        parts.append(f'<path class="wire" stroke="{net.colour}" d="{start} {run}"/>')
        parts.append(_text(_LABEL_X, out - 5, f"{net.label}", "pin-name", fill=net.colour))
    return parts


def _header_body() -> list[str]:
    top, bottom = _TOP + 28, _TOP + 52 + 19 * _PITCH + 26
    return [f'<rect class="header" x="{_ODD_X - 20}" y="{top}" width="72" height="{bottom - top}" rx="8"/>']


def _header_pins(colours: dict[int, str]) -> list[str]:
    parts = []
    for pin in range(1, 41):
        x, y = (_ODD_X if pin % 2 else _EVEN_X), _TOP + 52 + (pin - 1) // 2 * _PITCH
        colour = colours.get(pin)
        supply = SUPPLY.get(pin)
        used = "used" if colour else "free"
        parts.append(f'<circle class="pin {used}" cx="{x}" cy="{y}" r="11" fill="{colour or SHEET}"/>')
        parts.append(_text(x, y + 4, str(pin), f"number {used}"))
        if supply and pin % 2:
            parts.append(_text(_ODD_X - 28, y + 4, supply, "supply end"))
    return parts


def _board_outline(board: Board, bottom: int) -> list[str]:
    height = max(_TOP + 52 + 19 * _PITCH + 60, bottom) - _TOP + 10
    return [
        f'<rect class="board" x="40" y="{_TOP - 10}" width="{_EDGE_X - 40}" height="{height}" rx="12"/>',
        _text(_ODD_X + 16, _TOP + 16, "40-pin header", "small middle"),
    ]


def _draw_module(module: Module, top: int, header: PinHeader) -> list[str]:
    middle = [*_terminals(module, top)]
    parts = [
        f'<rect class="module" x="{_MODULE_X}" y="{top}" width="{_MODULE_END - _MODULE_X}" '
        f'height="{module.height}" rx="8" stroke="{module.colour}"/>'
    ]
    text_x = _MODULE_X + 20
    if module.kind in ("lamp", "switch"):
        parts += _pull_down(middle[0], header.pull_down_ohm)
    if module.kind == "lamp":
        parts += _buffer(_MODULE_X, middle[0], module.colour)
        parts += _lamp(_MODULE_END - 34, top + module.height / 2, module.colour)
        text_x += 40
    if module.kind == "switch":
        parts += _contact(_MODULE_END - 96, top + module.height / 2, module.colour)
    if module.kind == "chip":
        for net, y in zip(module.nets, middle, strict=True):
            parts.append(_text(_MODULE_X + 10, y + 4, net.terminal, "terminal"))
        text_x += 44
    parts.append(_text(text_x, top + 21, module.title, "title"))
    parts += [_text(text_x, top + 39 + 18 * n, row, "small") for n, row in enumerate(module.rows)]
    return parts


def _pull_down(y: float, ohm: int) -> list[str]:
    """A resistor from the wire at `y` to ground."""
    x = _GATE_X + 40
    return [
        f'<circle cx="{x}" cy="{y:g}" r="3" fill="{SOFT}"/>',
        f'<path class="symbol" d="M{x} {y:g} v6 M{x - 4} {y + 6:g} h8 v14 h-8 z M{x} {y + 20:g} v5 '
        f'M{x - 7} {y + 25:g} h14 M{x - 4} {y + 28:g} h8 M{x - 1.5} {y + 31:g} h3"/>',
        _text(x - 9, y + 17, f"{ohm // 1000} kΩ", "tiny end"),
    ]


def _buffer(x: int, y: float, colour: str) -> list[str]:
    return [f'<path class="symbol" stroke="{colour}" d="M{x + 10} {y - 9:g} v18 l18 -9 z M{x} {y:g} h10"/>']


def _lamp(x: float, y: float, colour: str) -> list[str]:
    return [
        f'<circle class="symbol" cx="{x}" cy="{y:g}" r="13" stroke="{colour}"/>',
        f'<path class="symbol" stroke="{colour}" d="M{x - 9} {y - 9:g} l18 18 m0 -18 l-18 18"/>',
    ]


def _contact(x: float, y: float, colour: str) -> list[str]:
    return [
        f'<path class="symbol" stroke="{colour}" d="M{x - 30} {y:g} h24 l24 -10 M{x + 14} {y:g} h24"/>',
        f'<circle cx="{x - 6}" cy="{y:g}" r="3" fill="{colour}"/>'
        f'<circle cx="{x + 14}" cy="{y:g}" r="3" fill="{colour}"/>',
        _text(x + 44, y + 4, "3V3", "supply"),
    ]


def _camera(board: Board, top: int) -> list[str]:
    camera, y = board.camera, top + 22
    still = camera.still
    words = f"{still.width} × {still.height}, {still.fps:g} frames/s"
    port = camera.port or "port"
    return [
        f'<path class="ribbon" d="M{_EDGE_X} {y} H{_MODULE_X}"/>',
        f'<rect class="header" x="{_EDGE_X - 14}" y="{y - 16}" width="14" height="32" rx="3"/>',
        _text(_LABEL_X, y - 9, port, "pin-name", fill=INK),
        f'<rect class="module" x="{_MODULE_X}" y="{top}" width="{_MODULE_END - _MODULE_X}" height="52" '
        f'rx="8" stroke="{INK}"/>',
        _text(_MODULE_X + 20, top + 21, camera.part or camera.driver, "title"),
        _text(_MODULE_X + 20, top + 39, words, "small"),
        f'<circle class="symbol" cx="{_MODULE_END - 34}" cy="{top + 26}" r="14" stroke="{INK}"/>'
        f'<circle class="symbol" cx="{_MODULE_END - 34}" cy="{top + 26}" r="6" stroke="{INK}"/>',
    ]


def _notes(board: Board, header: PinHeader, height: int) -> list[str]:
    notes = (
        f"▷ gate buffer 74HCT244, its 5 V made from the 24 V of the lamps; {header.pull_down_ohm // 1000} kΩ "
        "pulls every input low while nothing drives it.",
        "Lamps run from 24 V, never from the board. All grounds meet at one point, the negative terminal of "
        "that supply. Chips and contacts take 3V3 from header pin 1.",
    )
    return [_text(40, height - 40 + 20 * n, note, "small") for n, note in enumerate(notes)]


def _title(board: Board) -> str:
    return _text(40, 62, f"Wiring: {board.title or board.name}", "heading") + _text(
        40,
        94,
        f"Drawn from hardware/boards/{board.name}.toml; the profile is what the software obeys.",
        "lead",
    )


def _text(x: float, y: float, words: str, kind: str, fill: str | None = None) -> str:
    colour = f' style="fill:{fill}"' if fill else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{colour}>{escape(words)}</text>'


def _document(board: Board, height: int, parts: Sequence[str]) -> str:
    title = escape(f"Wiring of the {board.title or board.name}")
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">
<title>{title}</title>
<style>
text {{ font: 400 13px "Noto Sans", system-ui, sans-serif; fill: {INK}; }}
.heading {{ font-size: 30px; font-weight: 600; }}
.lead {{ font-size: 15px; fill: {SOFT}; }}
.title {{ font-size: 15px; font-weight: 600; }}
.small {{ font-size: 12.5px; fill: {SOFT}; }}
.tiny {{ font-size: 10.5px; fill: {SOFT}; }}
.pin-name {{ font-size: 12px; font-weight: 600; }}
.terminal, .supply {{ font-size: 12px; font-weight: 600; fill: {SOFT}; }}
.number {{ font-size: 10.5px; text-anchor: middle; fill: {SOFT}; }}
.number.used {{ fill: #ffffff; font-weight: 600; }}
.end {{ text-anchor: end; }}
.middle {{ text-anchor: middle; }}
.board {{ fill: #e4efee; stroke: {LINE}; stroke-width: 1.5; }}
.header {{ fill: {INK}; }}
.pin.free {{ fill: {PAPER}; }}
.module {{ fill: {SHEET}; stroke-width: 1.5; }}
.wire, .halo, .symbol {{ fill: none; stroke-linecap: round; stroke-linejoin: round; }}
.wire {{ stroke-width: 2; }}
.halo {{ stroke: {PAPER}; stroke-width: 7; }}
.symbol {{ stroke-width: 1.5; }}
.symbol:not([stroke]) {{ stroke: {SOFT}; }}
.ribbon {{ stroke: {LINE}; stroke-width: 8; }}
</style>
<rect width="{_WIDTH}" height="{height}" fill="{PAPER}"/>
{body}
</svg>
"""
