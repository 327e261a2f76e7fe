"""Makes tests/data/images/: a small picture, what Pillow makes of it, and files in every PNG, JPEG and WebP flavour.

Made with Python 3.11, Pillow 13.0.0, NumPy. Run: python make_image_dumps.py ../data/images
center_crop_arr is from github.com/openai/guided-diffusion (guided_diffusion/image_datasets.py), as DiT uses it.
"""
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)


def center_crop_arr(pil_image, image_size):
    while min(*pil_image.size) >= 2 * image_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.BOX)
    scale = image_size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)
    arr = np.array(pil_image)
    crop_y = (arr.shape[0] - image_size) // 2
    crop_x = (arr.shape[1] - image_size) // 2
    return arr[crop_y:crop_y + image_size, crop_x:crop_x + image_size]


# Edges, a gradient and noise: rounding shows everywhere.
rng = np.random.default_rng(1)
y, x = np.mgrid[0:71, 0:97]
source = np.stack([x * 2.6, y * 3.5, 255 * ((x // 7 + y // 5) % 2)], -1) + rng.normal(0, 20, (71, 97, 3))
source = np.clip(source, 0, 255).astype(np.uint8)
picture = Image.fromarray(source)
picture.save(out / "source.png")

for size in (16, 24, 48, 71, 100):
    Image.fromarray(center_crop_arr(picture, size)).save(out / f"center_crop_{size}.png")
picture.resize((40, 33), Image.BICUBIC).save(out / "bicubic_40x33.png")
picture.resize((130, 90), Image.BICUBIC).save(out / "bicubic_130x90.png")
picture.resize((40, 33), Image.BOX).save(out / "box_40x33.png")

# The same 8 x 6 picture in many flavours; *_expected.png is what reading one must give.
tiny = Image.fromarray(source[10:16, 20:28])
tiny.save(out / "tiny.png")
tiny.convert("L").save(out / "grey.png")
tiny.convert("L").convert("RGB").save(out / "grey_expected.png")
tiny.convert("1").save(out / "bits.png")
tiny.convert("1").convert("RGB").save(out / "bits_expected.png")
palette = tiny.quantize(7)
palette.save(out / "palette.png")
palette.convert("RGB").save(out / "palette_expected.png")
alpha = tiny.copy()
alpha.putalpha(Image.fromarray((np.arange(48).reshape(6, 8) * 5).astype(np.uint8)))
alpha.save(out / "alpha.png")
white = Image.new("RGBA", alpha.size, "white")
white.alpha_composite(alpha)
white.convert("RGB").save(out / "alpha_expected.png")
grey16 = (np.arange(48).reshape(6, 8) * 1365).astype(np.uint16)
Image.fromarray(grey16).save(out / "grey16.png")
Image.fromarray(np.rint(grey16 / 257).astype(np.uint8)).convert("RGB").save(out / "grey16_expected.png")

tiny.save(out / "tiny.jpg", quality=90)
tiny.save(out / "tiny_progressive.jpg", quality=90, progressive=True)
flavours = {"jpeg_420": {"subsampling": 2}, "jpeg_444": {"subsampling": 0}, "jpeg_progressive": {"progressive": True}}
for name, options in flavours.items():
    picture.save(out / f"{name}.jpg", quality=90, **options)
    Image.open(out / f"{name}.jpg").convert("RGB").save(out / f"{name}_expected.png")
picture.convert("L").save(out / "jpeg_grey.jpg", quality=90)
Image.open(out / "jpeg_grey.jpg").convert("RGB").save(out / "jpeg_grey_expected.png")
picture.convert("CMYK").save(out / "jpeg_cmyk.jpg", quality=90)
Image.open(out / "jpeg_cmyk.jpg").convert("RGB").save(out / "jpeg_cmyk_expected.png")

# WebP, and every orientation in every format: all are the same picture once they are upright.
tiny.save(out / "tiny.webp", lossless=True)
alpha.save(out / "alpha.webp", lossless=True, exact=True)
picture.save(out / "webp_lossy.webp", quality=90)
Image.open(out / "webp_lossy.webp").convert("RGB").save(out / "webp_lossy_expected.png")
tiny.save(out / "animated.webp", save_all=True, append_images=[tiny.rotate(180)])
tiny.save(out / "tiny.gif")
tiny.save(out / "tiny.tiff")
tiny.save(out / "tiny.bmp")
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiny.save(out / f"turned_{orientation}.png", exif=exif)
    tiny.save(out / f"turned_{orientation}.jpg", exif=exif, quality=95, subsampling=0)
    tiny.save(out / f"turned_{orientation}.webp", exif=exif, lossless=True)
    ImageOps.exif_transpose(Image.open(out / f"turned_{orientation}.png")).save(out / f"upright_{orientation}.png")
