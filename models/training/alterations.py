"""What may befall a picture on its way here, and copies of the validation pictures that suffered it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from hardware.srgb import srgb_coded, srgb_linear
from models.analysis.picture import read_labels, read_picture
from models.training.boxes import TWINS
from models.training.splits import FAMILIES_HELD_OUT, held_out, held_out_block

LESION_SHARE, FACE_SHARE = 0.1, 0.2
"""Of the validation lesions, and of the faces with acne, by a hash of their names: all would take hours."""
TURN = 15.0
_BLUR = 0.004
_NOISE = 10.0
_DAYLIGHT, _KELVIN = 6500.0, 500.0
_WAVELENGTHS = np.array([610e-9, 550e-9, 465e-9])
_PLANCK = 0.014388

Alter = Callable[[np.ndarray], np.ndarray]


def _blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), _BLUR * max(picture.shape[:2]))


def _noisy(picture: np.ndarray) -> np.ndarray:
    grain = np.random.default_rng(int(picture.sum())).normal(0, _NOISE, picture.shape)
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


def _lit(gains: np.ndarray) -> Alter:
    """Linear light times `gains` (B, G, R), as sRGB."""
    light = np.clip(srgb_linear(np.arange(256) / 255)[:, None] * gains, 0, 1)
    table = np.rint(srgb_coded(light) * 255).astype(np.uint8)
    return lambda picture: cv2.LUT(picture, table[None])


def _warmth(kelvin: float) -> np.ndarray:
    """(3,) B, G, R: a black body's light at daylight's temperature and `kelvin` more, against daylight."""

    def radiance(temperature: float) -> np.ndarray:
        return np.asarray(1 / np.expm1(_PLANCK / (_WAVELENGTHS * temperature)))

    gains = radiance(_DAYLIGHT + kelvin) / radiance(_DAYLIGHT)
    return np.asarray((gains / gains[1])[::-1])


def turn_matrix(shape: tuple[int, ...]) -> np.ndarray:
    """(2, 3): a rotation by TURN degrees about the middle of a picture."""
    return cv2.getRotationMatrix2D(((shape[1] - 1) / 2, (shape[0] - 1) / 2), TURN, 1.0)


def turned(picture: np.ndarray, border: int = cv2.BORDER_REFLECT, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The picture about its middle, at its size."""
    return cv2.warpAffine(
        picture, turn_matrix(picture.shape), picture.shape[1::-1], flags=how, borderMode=border
    )


def turned_boxes(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, 4) boxes about the ellipses that they hold, turned with the picture; (m, 4) whose middle stays."""
    matrix = turn_matrix(shape)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    reach = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    edge = np.array(shape[1::-1])
    moved = np.concatenate([middle - reach, middle + reach], 1)
    seen = ((middle > 0) & (middle < edge)).all(1)
    return np.clip(moved, 0, np.tile(edge, 2))[seen]


AS_TAKEN, TURNED, COMPRESSED = "as taken", f"turned by {TURN:.0f}°", "JPEG 50"
ALTERATIONS: dict[str, Alter] = {
    AS_TAKEN: lambda picture: picture,
    "blur, sigma 0.4 % of the longer side": _blurred,
    "noise, sigma 10 of 255": _noisy,
    "−1 stop": _lit(np.full(3, 0.5)),
    "+1 stop": _lit(np.full(3, 2.0)),
    "−500 K": _lit(_warmth(-_KELVIN)),
    "+500 K": _lit(_warmth(_KELVIN)),
    COMPRESSED: lambda picture: picture,
    TURNED: turned,
}


def altered_copy(data: Path, tasks: Sequence[str], name: str, out: Path) -> None:
    """The TASKS' validation pictures, altered, with their truth, laid out in `out` as in `data`."""
    makers = {"outline": _lesions, "lesion": _lesions, "acne": _acne, "parsing": _parsing}
    for make in {makers[task] for task in tasks}:
        make(data, name, out)


def _lesions(data: Path, name: str, out: Path) -> None:
    source, folder = data / "ham10000", out / "ham10000"
    (folder / "images").mkdir(parents=True), (folder / "masks").mkdir()
    with (source / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    some = [row for row in rows if held_out(row["lesion_id"])]
    some = [row for row in some if held_out(row["lesion_id"], LESION_SHARE, "robustness")]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(some)
    for row in some:
        _write(source / "images" / f"{row['image_id']}.jpg", name, folder / "images")
        _write_mask(source / "masks" / f"{row['image_id']}.png", name, folder / "masks")


def _acne(data: Path, name: str, out: Path) -> None:
    source, folder = data / "acne04" / "valid", out / "acne04" / "valid"
    (folder / "images").mkdir(parents=True)
    twins = set(TWINS.read_text(encoding="utf-8").split())
    shapes = {}
    for file in sorted((source / "images").iterdir()):
        if file.name not in twins and held_out(file.name, FACE_SHARE, "robustness"):
            shapes[file.name] = _write(file, name, folder / "images", cv2.BORDER_CONSTANT)
    corners = ("xmin", "ymin", "xmax", "ymax")
    with (
        (source / "boxes.csv").open(newline="", encoding="utf-8") as file,
        (folder / "boxes.csv").open("w", encoding="utf-8") as sink,
    ):
        rows = csv.DictReader(file)
        writer = csv.DictWriter(sink, fieldnames=["image", *corners, "class"])
        writer.writeheader()
        for row in rows:
            if row["image"] not in shapes:
                continue
            boxes = np.array([[float(row[corner]) for corner in corners]])
            if name == TURNED:
                boxes = turned_boxes(boxes, shapes[row["image"]])
            for box in boxes.tolist():
                places = dict(zip(corners, box, strict=True))
                writer.writerow({"image": row["image"], "class": row["class"]} | places)


def _parsing(data: Path, name: str, out: Path) -> None:
    for folder in ("fasseg_frontal03", "pratheepan_family"):
        for kind in ("images", "masks"):
            (out / folder / kind).mkdir(parents=True)
        for i, file in enumerate(sorted((data / folder / "images").iterdir())):
            portrait = folder.startswith("fasseg")
            if held_out_block(i) if portrait else held_out(file.stem, FAMILIES_HELD_OUT):
                _write(file, name, out / folder / "images")
                _write_mask(data / folder / "masks" / f"{file.stem}.png", name, out / folder / "masks")
            else:
                # The split of the portraits goes by their places in the folder.
                (out / folder / "images" / file.name).touch()


def _write(file: Path, name: str, folder: Path, border: int = cv2.BORDER_REFLECT) -> tuple[int, ...]:
    """The altered picture under its old name; lossless whatever that ends in, unless it is compressed."""
    # The alterations are written in OpenCV's order of channels, blue first.
    picture = np.ascontiguousarray(read_picture(file)[:, :, ::-1])
    picture = turned(picture, border) if name == TURNED else ALTERATIONS[name](picture)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 50]
    kind, options = (".jpg", quality) if name == COMPRESSED else (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (folder / file.name).write_bytes(cv2.imencode(kind, picture, options)[1].tobytes())
    return picture.shape


def _write_mask(file: Path, name: str, folder: Path) -> None:
    mask = read_labels(file)
    cv2.imwrite(str(folder / file.name), turned(mask, how=cv2.INTER_NEAREST) if name == TURNED else mask)
