"""Pictures as people have them, and what the model gets of them."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apportion.domains.image import ImagePreparation, from_processor, read_image

ORIENTATION = 0x0112
# What a camera that wrote this orientation did to the upright picture (EXIF 2.32, 4.6.4).
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(STORED)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_rotated_photo_is_read_upright(orientation: int, height: int, width: int, seed: int) -> None:
    upright = Image.fromarray(noise(height, width, seed))
    stored = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as image:
        assert np.array_equal(np.asarray(read_image(image)), np.asarray(upright))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_every_form_of_the_same_pixels_is_the_same_picture(height: int, width: int, seed: int) -> None:
    pixels = noise(height, width, seed)
    opaque = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [pixels, pixels / 255, (pixels / 255).astype(np.float32), opaque, pixels.astype(np.uint16) * 257]
    forms += [Image.fromarray(pixels)]
    if height not in (1, 3, 4):  # a tensor of such a height reads as channels first
        forms += [torch.from_numpy(pixels)]
    forms += [tensor, tensor[None], tensor / 255, (tensor / 255).double().requires_grad_()]
    for form in forms:
        assert np.array_equal(np.asarray(read_image(form)), pixels)


def test_grey_in_all_depths(tmp_path: Path) -> None:
    grey = noise(5, 7)[:, :, 0]
    expected = np.dstack([grey] * 3)
    files = [
        saved(Image.fromarray(grey), tmp_path / "eight.png"),
        saved(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / "sixteen.png"),
        saved(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / "sixteen.tif"),
        saved(Image.fromarray(grey.astype(np.int32) * 257), tmp_path / "integers.tif"),
        saved(Image.fromarray((grey / 255).astype(np.float32)), tmp_path / "floats.tif"),
    ]
    for source in [*files, grey, grey[:, :, None], grey / 255, torch.from_numpy(grey)]:
        assert np.array_equal(np.asarray(read_image(source)), expected), source
    black_and_white = grey > 127
    assert np.array_equal(np.asarray(read_image(black_and_white))[:, :, 0], black_and_white * 255)


def test_palette_transparency_cmyk_and_animation(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    palette = saved(red.quantize(4), tmp_path / "palette.png")
    assert read_image(palette).getpixel((0, 0)) == (255, 0, 0)
    see_through = saved(red.quantize(4), tmp_path / "see_through.png", transparency=0)
    assert read_image(see_through).getpixel((0, 0)) == (255, 255, 255)
    half = saved(Image.new("RGBA", (4, 3), (255, 0, 0, 128)), tmp_path / "half.png")
    assert read_image(half).getpixel((0, 0)) == (255, 127, 127)
    grey_alpha = saved(Image.new("LA", (4, 3), (0, 0)), tmp_path / "grey_alpha.png")
    assert read_image(grey_alpha).getpixel((0, 0)) == (255, 255, 255)
    cmyk = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "cmyk.jpg", quality=100)
    assert np.allclose(read_image(cmyk).getpixel((8, 8)), (255, 0, 0), atol=4)
    animated = saved(red, tmp_path / "animated.gif", save_all=True, append_images=[blue])
    assert read_image(animated).getpixel((0, 0)) == (255, 0, 0)
    with Image.open(animated) as image:
        image.seek(1)
        assert read_image(image).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_not_a_picture_is_one_clear_line(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(noise(64, 64)), tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "cut.png").write_bytes(
        saved(Image.fromarray(noise(64, 64)), tmp_path / "whole.png").read_bytes()[:900]
    )
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: no such file; a picture is") as missing:
        read_image(tmp_path / "nowhere.jpg")
    assert "\n" not in str(missing.value)
    for name, said in {
        "": "is a folder",
        "text.jpg": "is not a picture that Pillow can read",
        "empty.jpg": "is empty",
        "cut.jpg": "is damaged or cut off",
        "cut.png": "is damaged or cut off",
    }.items():
        with pytest.raises(ValueError, match=said) as caught:
            read_image(str(tmp_path / name))
        message = str(caught.value)
        assert (name or tmp_path.name) in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \(5, 5, 2\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.full((5, 5), 200.0), "values from 200 to 200"),
        (np.full((5, 5), -0.5), "values from -0.5"),
        (np.full((5, 5), np.nan), "not finite"),
        (np.zeros((5, 5), np.int64), "type int64"),
        (torch.zeros(2, 3, 5, 5), r"shape \(2, 3, 5, 5\)"),
        (Image.new("RGB", (0, 3)), "no pixels"),
        (b"bytes", "from bytes"),
        (None, "from NoneType"),
    ],
)
def test_what_is_not_pixels_says_what_came(source: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_image(source)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_shapes_and_alignment(height: int, width: int, resize: int, crop: int) -> None:
    preparation = ImagePreparation(resize, crop, mean=(0.0,) * 3, std=(1.0,) * 3)
    inputs, features = preparation(noise(height, width))
    assert inputs.shape == (1, 3, crop, crop)
    assert inputs.dtype == torch.float32
    assert features.picture.dtype == torch.uint8
    assert torch.allclose(inputs[0].permute(1, 2, 0) * 255, features.picture.float(), atol=1e-4)


def test_preparation_by_hand(tmp_path: Path) -> None:
    pixels = noise(6, 10)
    path = saved(Image.fromarray(pixels), tmp_path / "photo.png")
    inputs, features = ImagePreparation(None, 4, mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0)(path)
    expected = (pixels[1:5, 3:7].astype(np.float64) - 127) / 128
    assert np.allclose(inputs[0].permute(1, 2, 0), expected, atol=1e-7)
    assert features.note == "photo.png 10x6, centre crop 4"
    inputs, features = ImagePreparation((3, 5), None, mean=(0.5,), std=(0.5,))(pixels)
    assert inputs.shape == (1, 1, 3, 5)
    assert features.picture.shape == (3, 5, 3)
    assert features.note == "array 10x6, resized to 5x3, grey"


def test_a_preparation_that_cannot_work_says_so() -> None:
    with pytest.raises(ValueError, match="interpolation='cubic' is not one of nearest"):
        ImagePreparation(interpolation="cubic")
    with pytest.raises(ValueError, match="1 or 3 numbers"):
        ImagePreparation(mean=(0.5, 0.5), std=(0.5, 0.5))
    with pytest.raises(ValueError, match="must be positive"):
        ImagePreparation(crop=0)
    with pytest.raises(ValueError, match="is 10x6; this model takes 28x28 only"):
        ImagePreparation(None, None, accept=(28, 28))(noise(6, 10))
    with pytest.raises(ValueError, match="do_pad=True"):
        from_processor(SimpleNamespace(do_pad=True, size=224))
    with pytest.raises(ValueError, match="longest_edge"):
        from_processor(SimpleNamespace(size={"shortest_edge": 800, "longest_edge": 1333}))


PROCESSORS = """
import sys
sys.modules["torchvision"] = None  # transformers then does without it
import numpy as np
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil as ViT
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil as ConvNext
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as CLIP
from apportion.domains.image import from_processor

processors = [
    ViT(), ViT(size={"height": 30, "width": 40}, do_normalize=False), ViT(do_resize=False, do_rescale=False),
    ConvNext(size={"shortest_edge": 96}), ConvNext(size={"shortest_edge": 384}),
    MobileNetV2ImageProcessorPil(), CLIP(),
    CLIP(size={"shortest_edge": 40}, crop_size={"height": 55, "width": 33}, resample=2),
]
rng = np.random.default_rng(0)
for shape in [(91, 64, 3), (50, 121, 3)]:
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    for processor in processors:
        theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"])
        ours = from_processor(processor)(image)[0].numpy()
        assert ours.shape == theirs.shape, (processor, ours.shape, theirs.shape)
        assert np.abs(ours - theirs).max() < 1e-4, (processor, np.abs(ours - theirs).max())
print("equal", len(processors))
"""


def test_equal_to_the_hugging_face_processor() -> None:
    package = find_spec("transformers")  # looked for, not imported: it would bring torchvision along
    folders = (package.submodule_search_locations or []) if package else []
    if not any((Path(f) / "models/vit/image_processing_pil_vit.py").exists() for f in folders):
        pytest.skip("needs a transformers with image processors that do without torchvision")
    done = subprocess.run([sys.executable, "-c", PROCESSORS], capture_output=True, text=True, check=False)
    assert done.stdout == "equal 8\n", done.stderr[-3000:]
