"""From a picture as a person has it (a file, a PIL image, an array, a tensor) to a model's input."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from apportion.core.features import ImageFeatures
from apportion.core.files import check_file, path_of
from apportion.errors import InputError, MissingFileError

ACCEPTED = (
    "a picture is a file that Pillow reads (JPEG, PNG, GIF, WebP, TIFF, ...), a PIL image, an array "
    "(height, width), (height, width, 3) or (height, width, 4), or a tensor (3, height, width); "
    "numbers are uint8, or floats in [0, 1]"
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = {kind.name.lower(): kind for kind in Image.Resampling}

Size = tuple[int, int]


def read_image(source: Any) -> Image.Image:
    """An upright RGB picture from a path, PIL image, array or tensor.

    EXIF orientation is applied, transparency is composited on white, 16-bit grey keeps its upper 8 bits,
    and of an animation the first frame is taken. Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4);
    tensors are (H, W) or (C, H, W), with or without a batch dimension of one; numbers are uint8 or uint16,
    bool, or floats in [0, 1].

    Raises FileNotFoundError for a missing file, and ValueError for anything that is not a picture.

    >>> read_image(np.zeros((2, 3))).size
    (3, 2)
    >>> read_image(np.array([[[255, 0, 0, 0]]], dtype=np.uint8)).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(source, str | Path):
        return _read_file(path_of("the picture", source))
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the PIL image")
    if isinstance(source, Tensor):
        return _upright_rgb(_from_array(_channels_last(source), "the tensor"), "the tensor")
    if isinstance(source, np.ndarray):
        return _upright_rgb(_from_array(source, "the array"), "the array")
    raise InputError(f"cannot read a picture from {type(source).__name__}: {ACCEPTED}")


def _read_file(path: Path) -> Image.Image:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a picture: {ACCEPTED}")
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; {ACCEPTED}")
    check_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): {ACCEPTED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(path)
        with image:
            check_pixels(image, str(path))
            return _upright_rgb(image, str(path))
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture that Pillow can read: {ACCEPTED}") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}") from None
    except (OSError, SyntaxError, EOFError) as error:  # what Pillow's decoders raise on damaged data
        raise InputError(f"{path} is damaged or cut off ({error}): {ACCEPTED}") from None


MOST_PIXELS = 50_000_000  # of a picture, unpacked: some hundred bytes can hold more than memory does


def check_pixels(image: Image.Image, name: str) -> None:
    """Raise InputError for a picture that is too large, before it is unpacked."""
    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels; accepted: at most {MOST_PIXELS // 1_000_000} million"
        )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) == 0:
        raise InputError(f"{name} has no pixels ({image.width}x{image.height}): {ACCEPTED}")
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_grey(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _deep_grey(image: Image.Image, name: str) -> Image.Image:
    """16-bit integers or floats to 8 bits; Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    if image.mode == "F":
        return _from_array(values, name)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{name} has values from {values.min()} to {values.max()}, beyond 16 bits: {ACCEPTED}"
        )
    return _from_array(values.astype(np.uint16), name)


def _channels_last(tensor: Tensor) -> npt.NDArray[Any]:
    if tensor.ndim == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    tensor = tensor.detach().cpu()
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _from_array(array: npt.NDArray[Any], name: str) -> Image.Image:
    got = f"{name} has shape {array.shape} and type {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise InputError(f"{got}: {ACCEPTED}")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise InputError(f"{got}, some of it not finite: {ACCEPTED}")
        if array.min() < -1e-3 or array.max() > 1 + 1e-3:  # room for rounding, not for 0-255 as floats
            raise InputError(f"{got}, values from {array.min():g} to {array.max():g}: {ACCEPTED}")
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{got}: {ACCEPTED}")
    return Image.fromarray(np.ascontiguousarray(array))


@dataclass(frozen=True)
class ImagePreparation:
    """Resize, centre crop and normalise: `(pixel * scale - mean) / std`, as the model was trained.

    The defaults are those of most ImageNet models.

    Attributes:
        resize (int or (height, width), default 256, pixels): An int is the shorter side, a pair exactly that; None:
            leave the size.
        crop (int or (height, width), default 224, pixels): The centre crop, black where the picture is smaller; None:
            none.
        mean (tuple of float, default IMAGENET_MEAN): One number a channel; a single number makes the picture grey,
            with one channel.
        std (tuple of float, default IMAGENET_STD): One number a channel.
        scale (float, default 1 / 255): Factor of the 8-bit values.
        interpolation (str, default "bilinear"): "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos".
        accept ((height, width), default None, pixels): The only size taken; None: any.

    >>> inputs, features = ImagePreparation()(np.zeros((300, 451, 3)))
    >>> inputs.shape, features.note
    (torch.Size([1, 3, 224, 224]), 'array 451x300, resized to 256, centre crop 224')
    """

    resize: int | Size | None = 256
    crop: int | Size | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    scale: float = 1 / 255
    interpolation: str = "bilinear"
    accept: Size | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            accepted = ", ".join(INTERPOLATIONS)
            raise InputError(f"interpolation={self.interpolation!r} is not one of {accepted}")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise InputError(f"mean and std need 1 or 3 numbers each, not {self.mean} and {self.std}")
        sides = [side for size in (self.resize, self.crop) if size is not None for side in _pair(size)]
        if min(self.std) <= 0 or min(sides, default=1) < 1:
            raise InputError(f"std, resize and crop must be positive: {self}")

    def __call__(self, source: Any) -> tuple[Tensor, ImageFeatures]:
        """Model input (1, channels, height, width) in float32, and the same pixels to draw on.

        Errors are those of `read_image`, and ValueError for a size that is not accepted.
        """
        photo = read_image(source)
        picture, note = self.fit(photo)
        name = Path(source).name if isinstance(source, str | Path) else _kind(source)
        pixels = torch.from_numpy(np.array(picture))
        channels = (
            np.asarray(picture.convert("L"))[:, :, None] if len(self.mean) == 1 else np.asarray(picture)
        )
        # In double until the end: the constants are decimal, and 1/255 in float32 is already 1e-8 off.
        values = (channels.astype(np.float64) * self.scale - np.array(self.mean)) / np.array(self.std)
        tensor = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1).unsqueeze(0).contiguous()
        return tensor, ImageFeatures(pixels, f"{name} {note}", photo.size, self._part(*photo.size))

    def fit(self, picture: Image.Image) -> tuple[Image.Image, str]:
        """The picture resized and cropped, still in 8 bits, and what was done in words."""
        width, height = picture.size
        if self.accept is not None and (height, width) != self.accept:
            raise InputError(f"the picture is {width}x{height}; this model takes {_text(self.accept)} only")
        steps = [f"{width}x{height}"]
        if self.resize is not None:
            picture = picture.resize(self._resized(width, height), INTERPOLATIONS[self.interpolation])
            steps.append(f"resized to {_text(self.resize)}")
        if self.crop is not None:
            high, wide = _pair(self.crop)
            top, left = (picture.height - high) // 2, (picture.width - wide) // 2
            picture = picture.crop((left, top, left + wide, top + high))
            steps.append(f"centre crop {_text(self.crop)}")
        if len(self.mean) == 1:
            steps.append("grey")
        return picture, ", ".join(steps)

    def _part(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is seen of a photo of this size, in its pixels."""
        wide, high = (width, height) if self.resize is None else self._resized(width, height)
        left = top = 0
        right, bottom = wide, high
        if self.crop is not None:
            down, across = _pair(self.crop)
            left, top = (wide - across) // 2, (high - down) // 2
            right, bottom = left + across, top + down
        return left * width / wide, top * height / high, right * width / wide, bottom * height / high

    def _resized(self, width: int, height: int) -> Size:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        # The longer side is cut off, not rounded: what torchvision and transformers do.
        side, short = self.resize or 0, min(width, height)
        return max(1, side * width // short), max(1, side * height // short)


@dataclass(frozen=True)
class GuessedPreparation(ImagePreparation):
    """The preparation of a model that does not say how it was trained: explanations tell what was taken for it."""

    @property
    def guess(self) -> str:
        taken = [f"resized to {_text(self.resize)}"] if self.resize is not None else []
        taken += [f"cropped to {_text(self.crop)}"] if self.crop is not None else []
        taken.append("ImageNet mean and std" if self.mean == IMAGENET_MEAN else "grey from 0 to 1")
        return f"preparation guessed: {', '.join(taken)} (more: ImagePreparation in the docs)"


def from_processor(processor: Any) -> ImagePreparation:
    """The preparation that a Hugging Face image processor describes, without running it.

    Reads `size`, `crop_size`, `crop_pct`, `image_mean`, `image_std`, `rescale_factor`, `resample` and the
    `do_*` flags. Raises ValueError for a processor that pads, or whose size is neither `shortest_edge` nor
    `height`, `width`.

    >>> from types import SimpleNamespace
    >>> half = [0.5, 0.5, 0.5]
    >>> vit = SimpleNamespace(size={"height": 224, "width": 224}, image_mean=half, image_std=half, resample=2)
    >>> from_processor(vit)(np.zeros((10, 10)))[0].mean().item()
    -1.0
    """
    kind = type(processor).__name__
    for unsupported in ("do_pad", "rescale_offset", "include_top", "do_reduce_labels"):
        if getattr(processor, unsupported, None):
            raise InputError(
                f"{kind} has {unsupported}=True, which cannot be followed; give an ImagePreparation"
            )
    resize: int | Size | None = None
    crop: int | Size | None = None
    if getattr(processor, "do_resize", True):
        resize = _size(getattr(processor, "size", None), kind)
        crop_pct = getattr(processor, "crop_pct", None)
        if crop_pct and isinstance(resize, int):  # ConvNeXT: crop below 384 pixels, squash from there on
            resize, crop = (int(resize / crop_pct), resize) if resize < 384 else ((resize, resize), None)
    if getattr(processor, "do_center_crop", False):
        crop = _size(getattr(processor, "crop_size", None), kind)
    normalise = getattr(processor, "do_normalize", True)
    rescale = getattr(processor, "do_rescale", True)
    resample = getattr(processor, "resample", None)
    return ImagePreparation(
        resize=resize,
        crop=crop,
        mean=tuple(map(float, processor.image_mean)) if normalise else (0.0,) * 3,
        std=tuple(map(float, processor.image_std)) if normalise else (1.0,) * 3,
        scale=float(getattr(processor, "rescale_factor", 1 / 255)) if rescale else 1.0,
        interpolation="bilinear" if resample is None else Image.Resampling(int(resample)).name.lower(),
    )


def _size(size: Any, kind: str) -> int | Size:
    """A number, or a dict or object with `shortest_edge`, or `height` and `width`."""
    if isinstance(size, int):
        return size
    found = {key: _entry(size, key) for key in ("shortest_edge", "longest_edge", "height", "width")}
    if found["height"] and found["width"]:
        return int(found["height"]), int(found["width"])
    if found["shortest_edge"] and not found["longest_edge"]:
        return int(found["shortest_edge"])
    raise InputError(f"{kind} has size {size!r}; expected shortest_edge, or height and width")


def _entry(size: Any, key: str) -> Any:
    return size.get(key) if isinstance(size, dict) else getattr(size, key, None)


def _pair(size: int | Size) -> Size:
    return size if isinstance(size, tuple) else (size, size)


def _text(size: int | Size) -> str:
    """Width first, as people write picture sizes."""
    return f"{size[1]}x{size[0]}" if isinstance(size, tuple) else str(size)


def _kind(source: Any) -> str:
    if isinstance(source, Image.Image):
        return "picture"
    return "tensor" if isinstance(source, Tensor) else "array"
