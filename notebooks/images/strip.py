"""The strip of pictures on the site's first page: digits, clothes and emoji, drawn by the models in data/models.

    python3 notebooks/images/strip.py        (needs numpy and pillow, and the example `diffusion`)
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


def held_back(sheet, captions):
    """Ten emoji that the network has never seen, by the rule of lesson 25: every tenth motif, with its variants."""
    places, chosen = {}, []
    for index, caption in enumerate(captions):
        subject, _, tone = caption.rpartition(", ")
        subject = subject if "skin" in tone and subject else caption
        who = {"man", "woman", "person", "men", "women", "people"}
        motif = " ".join(word for word in subject.split(" ") if word not in who)
        new = motif not in places
        if places.setdefault(motif, len(places)) % 10 == 9 and new:
            chosen.append(index)
    for index in chosen[4 :: len(chosen) // COLUMNS][:COLUMNS]:
        y, x = divmod(index, sheet.width // 64)
        yield sheet.crop((64 * x, 64 * y, 64 * x + 64, 64 * y + 64))


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
        sheet = Image.open(ROOT / "data/emoji/emoji-64.png").convert("RGB")
        lines = (ROOT / "data/emoji/captions.tsv").read_text().splitlines()[1:]
        captions = [line.split("\t")[2] for line in lines]
        rows.append([])
        for emoji in held_back(sheet, captions):
            small = folder / "small.png"
            emoji.resize((16, 16), Image.BOX).save(small)
            rows[2].append(draw(folder, "--model", models / "upscaler.safetensors", "--init", small)[0])
    for y, row in enumerate(rows):
        for x, values in enumerate(row):
            strip.paste(picture(values), (x * (SIDE + GAP) + GAP // 2, y * ROW + (ROW - SIDE) // 2))
    strip.save(ROOT / "notebooks/images/strip.png", optimize=True)


if __name__ == "__main__":
    main()
