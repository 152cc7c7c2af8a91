"""The strip of pictures on the site's first page: digits and clothes, drawn by the models in data/models, and emoji, drawn
by data/emoji-sd from names that it has never seen together.

    python3 notebooks/images/strip.py        (needs numpy and pillow, and the examples `diffusion` and `stable_diffusion`)
"""

import json
import pathlib
import struct
import subprocess
import tempfile

import numpy
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS, SIDE, GAP, ROW = 10, 84, 16, 104


def draw(folder, *options):
    """The images (n, c, h, w) that the example draws."""
    out = folder / "out.safetensors"
    command = ["cargo", "run", "--quiet", "--release", "-p", "minai", "--example", "diffusion", "--", "sample"]
    subprocess.run([*command, *map(str, options), "--out", str(out)], cwd=ROOT, check=True)
    data = out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])["images"]
    begin, end = entry["data_offsets"]
    values = numpy.frombuffer(data[8 + length + begin : 8 + length + end], numpy.float32)
    return values.reshape(entry["shape"])


def emoji(folder, prompt, seed):
    """The values (3, 64, 64) of what the course's Stable Diffusion draws."""
    out = folder / "emoji.png"
    command = ["cargo", "run", "--quiet", "--release", "-p", "minai", "--example", "stable_diffusion", "--"]
    options = ["--prompt", prompt, "--guidance", "3", "--steps", "18", "--sampler", "DPM++ 2M Karras", "--seed", str(seed)]
    subprocess.run([*command, *options, "--out", str(out)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    pixels = numpy.asarray(Image.open(out).convert("RGB"), numpy.float32)
    return (pixels / 127.5 - 1).transpose(2, 0, 1)


def picture(values):
    """A picture of SIDE by SIDE pixels from values (c, h, w) from -1 to 1."""
    pixels = ((values.transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(numpy.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    return image.resize((SIDE, SIDE), Image.NEAREST if image.width < 64 else Image.LANCZOS)


def main():
    strip = Image.new("RGBA", (COLUMNS * (SIDE + GAP), 3 * ROW), (0, 0, 0, 0))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = ROOT / "data/models"
        rows = [
            list(draw(folder, "--model", models / f"{model}.safetensors", "--class", "all", "--n", COLUMNS, "--seed", seed))
            for model, seed in (("digits", 1), ("clothes", 1))
        ]
        # Not chosen by their looks: every sixth of the captions that are held back, with one seed.
        held = (ROOT / "data/emoji/held_back.txt").read_text().splitlines()
        rows.append([emoji(folder, prompt, 1) for prompt in held[3 :: 6][:COLUMNS]])
    for y, row in enumerate(rows):
        for x, values in enumerate(row):
            strip.paste(picture(values), (x * (SIDE + GAP) + GAP // 2, y * ROW + (ROW - SIDE) // 2))
    strip.save(ROOT / "notebooks/images/strip.png", optimize=True)


if __name__ == "__main__":
    main()
