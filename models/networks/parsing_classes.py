"""What a pixel of a portrait may show, in training and in the kiosk alike."""

from __future__ import annotations

CLASSES = ("background", "hair", "skin", "eyes", "nose", "mouth")
BACKGROUND, HAIR, SKIN, EYES, NOSE, MOUTH = range(6)
