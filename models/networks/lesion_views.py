"""What the lesion networks look at, in training and in the kiosk alike: classes, views, scale."""

from __future__ import annotations

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
# Sides of the square views, in sides of the lesion's bounding square; a scan's answer is the views' mean.
VIEWS = (1.4, 2.4)
# Height and width of the pictures, and the least side of a lesion's square, in their pixels.
NATIVE = (150, 200)
LEAST_SIDE = 30.0
