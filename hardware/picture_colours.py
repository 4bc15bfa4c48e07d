"""What may be said of the numbers in a picture file, and the option that says it, the same everywhere."""

from __future__ import annotations

from typing import Literal

import click

Colour = Literal["auto", "srgb", "linear-srgb"]
COLOURS = ("auto", "srgb", "linear-srgb")

colour_option = click.option(
    "--colour",
    type=click.Choice(COLOURS),
    default="auto",
    show_default=True,
    help="What the numbers in picture files mean; auto: what profile and tags say, else sRGB. In 16 bits of "
    "linear-srgb, 65535 is reflectance 1.0.",
)
