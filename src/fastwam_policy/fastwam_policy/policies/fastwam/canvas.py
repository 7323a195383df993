"""Camera images to the single canvas that the model sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.yaml_model import StrictModel

_LARGEST, _TILES = 4096, 64  # px of a side of the canvas, and tiles
_LONGEST = 16  # times its tile: a picture that is longer and is to cover it would fill the memory
_LATER = {"rotated": False, "fit": "stretch"}  # what older versions of the format do not know, and did


class Tile(StrictModel):
    """Where one camera lies on the canvas, in pixels, and how its image is brought there: turned, cropped, scaled."""

    camera: str
    x: int
    y: int
    width: PositiveInt
    height: PositiveInt
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Part of the image that is used: left, top, right and bottom, as shares of its width and height."""
    rotated: bool = False
    """Turned by 180 degrees, before all else."""
    fit: Literal["stretch", "cover"] = "stretch"
    """`stretch` fills the tile, whatever the aspect ratio; `cover` keeps it, and cuts the centre out."""

    @model_validator(mode="after")
    def _crops(self) -> Tile:
        left, top, right, bottom = self.crop
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"crop must be left, top, right, bottom with 0 <= left < right <= 1, got {self.crop}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is as it always was: older versions read it, and cached latents are still found by it."""
        data: dict[str, Any] = write(self)
        return {key: value for key, value in data.items() if key not in _LATER or value != _LATER[key]}

    def view(self, image: Pixels) -> Pixels:
        """The tile's pixels [height, width, 3] from a camera image of any size.

        Raises:
            ValueError: the image is to cover the tile, and is far too long for that.
        """
        if self.rotated:
            image = image[::-1, ::-1]
        rows, columns = image.shape[:2]
        left, top, right, bottom = self.crop
        box = (left * columns, top * rows, right * columns, bottom * rows)
        width, height = self._scaled(box[2] - box[0], box[3] - box[1])
        pixels = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))
        x, y = (width - self.width) // 2, (height - self.height) // 2
        return pixels[y : y + self.height, x : x + self.width]

    def _scaled(self, width: float, height: float) -> tuple[int, int]:
        """Pixels that a picture of this size gets. As training did, it is scaled as a whole and cut afterwards."""
        if self.fit == "stretch":
            return self.width, self.height
        scale = max(self.width / width, self.height / height)
        size = round(width * scale), round(height * scale)
        if size[0] > _LONGEST * self.width or size[1] > _LONGEST * self.height:
            raise ValueError(
                f"a picture of {width:.0f} x {height:.0f} pixels is too long to cover the tile of {self.camera}, "
                f"{self.width} x {self.height}"
            )
        return size


class Layout(StrictModel):
    """The canvas [height, width] and its tiles."""

    width: Annotated[int, Field(gt=0, le=_LARGEST)]
    height: Annotated[int, Field(gt=0, le=_LARGEST)]
    tiles: list[Tile] = Field(max_length=_TILES)

    @model_validator(mode="after")
    def _covers(self) -> Layout:
        count = np.zeros((self.height, self.width), int)
        for index, tile in enumerate(self.tiles):
            if tile.x < 0 or tile.y < 0 or tile.x + tile.width > self.width or tile.y + tile.height > self.height:
                raise ValueError(
                    f"tiles[{index}] ({tile.camera}) lies outside the canvas of {self.width} x {self.height}"
                )
            count[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
        if (count != 1).any():
            raise ValueError("tiles must cover every pixel of the canvas exactly once")
        if self.width % 32 or self.height % 32:
            raise ValueError(f"width and height must be multiples of 32, got {self.width} x {self.height}")
        return self

    def compose(self, images: Mapping[str, Pixels]) -> Pixels:
        """Canvas uint8 [height, width, 3] from one RGB image of any size for each camera."""
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        for tile in self.tiles:
            canvas[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = tile.view(images[tile.camera])
        return canvas


ROBOTWIN = Layout(
    width=320,
    height=384,
    tiles=[
        Tile(camera="head", x=0, y=0, width=320, height=256),
        Tile(camera="wrist_left", x=0, y=256, width=160, height=128),
        Tile(camera="wrist_right", x=160, y=256, width=160, height=128),
    ],
)
"""The official three-camera layout: both wrists side by side under the head camera."""

LIBERO = Layout(
    width=448,
    height=224,
    tiles=[
        Tile(camera=camera, x=x, y=0, width=224, height=224, rotated=True, fit="cover")
        for camera, x in (("agentview", 0), ("wrist", 224))
    ],
)
"""The official two-camera layout: side by side, each turned by 180 degrees."""


def to_model_input(canvas: Pixels, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Canvas [H, W, 3] -> [1, 3, H, W] in -1..1, computed in the model's `dtype` as in training."""
    pixels = torch.from_numpy(canvas).to(device).permute(2, 0, 1)[None]
    return pixels.to(dtype) * (2 / 255) - 1
