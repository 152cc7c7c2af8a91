"""Draws 18_u.svg, 33_u.svg, 34_halves.svg and 35_parts.svg: python3 notebooks/images/network_drawings.py"""
from pathlib import Path

FOLDER = Path(__file__).parent
INK, SKIP, NET, DATA = "#333333", "#b35900", "#dbe7f5", "#f2f2f2"


class Drawing:
    def __init__(self, width, height):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]

    def text(self, x, y, lines, size=13, weight="normal", colour=INK, anchor="middle"):
        for i, line in enumerate(lines.split("\n")):
            self.parts.append(
                f'<text x="{x}" y="{y + i * (size + 4)}" text-anchor="{anchor}" font-size="{size}"'
                f' font-weight="{weight}" fill="{colour}">{line}</text>'
            )

    def box(self, x, y, width, height, lines, fill=NET, size=13):
        """Its name, bold, and what else is said, centred; x and y are the top left corner."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}" stroke="{INK}"/>'
        )
        name, *rest = lines.split("\n")
        top = y + height / 2 + 4 - len(rest) * (size + 3) / 2
        self.text(x + width / 2, top, name, size, "bold")
        if rest:
            self.text(x + width / 2, top + size + 3, "\n".join(rest), size - 2)

    def arrow(self, points, colour=INK, dashed=False):
        (x0, y0), (x1, y1) = points[-2:]
        path = " L".join(f"{x} {y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        wing = lambda side: f"{x1 - 8 * dx + side * 4 * dy} {y1 - 8 * dy + side * 4 * dx}"
        self.parts.append(f'<path d="M{wing(1)} L{x1} {y1} L{wing(-1)} z" fill="{colour}"/>')

    def save(self, name):
        (FOLDER / name).write_text("\n".join(self.parts) + "\n</svg>\n")


def the_small_u():
    d = Drawing(820, 330)
    width, height, left, right = 150, 50, 60, 590
    for i, shape in enumerate(["16 × 28 × 28", "48 × 14 × 14", "96 × 7 × 7"]):
        y, x_down, x_up = 56 + i * 76, left + i * 62, right - i * 62
        d.box(x_down, y, width, height, f"{shape}\nresidual block")
        d.box(x_up, y, width, height, f"{shape}\nresidual block")
        d.arrow([(x_down + width, y + 25), (x_up, y + 25)], SKIP, dashed=True)
        if i < 2:
            d.arrow([(x_down + 110, y + height), (x_down + 110, y + 76)])
            d.arrow([(x_up + 40, y + 76), (x_up + 40, y + height)])
    d.text(135, 20, "image 1 × 28 × 28", weight="bold")
    d.arrow([(135, 26), (135, 56)])
    d.text(142, 46, "conv_in", 11, anchor="start")
    d.text(665, 20, "noise 1 × 28 × 28", weight="bold")
    d.arrow([(665, 56), (665, 26)])
    d.text(672, 46, "conv_out", 11, anchor="start")
    d.text(178, 121, "stride 2", 11, anchor="start", colour="#666666")
    d.text(638, 121, "size × 2", 11, anchor="start", colour="#666666")
    d.text(400, 74, "skip connections", 12, colour=SKIP)
    y_low = 56 + 2 * 76 + height
    d.arrow([(left + 124 + 75, y_low), (left + 124 + 75, 293), (325, 293)])
    d.box(325, 268, 150, height, "96 × 7 × 7\nmiddle block")
    d.arrow([(475, 293), (right - 124 + 75, 293), (right - 124 + 75, y_low)])
    d.text(20, 260, "noise level σ", weight="bold", anchor="start")
    d.text(20, 277, "to every block", 11, anchor="start")
    d.save("18_u.svg")


def the_u():
    d = Drawing(900, 470)
    levels = [("320 × 64 × 64", True), ("640 × 32 × 32", True), ("1280 × 16 × 16", True), ("1280 × 8 × 8", False)]
    width, height, left, right = 170, 56, 60, 670
    for i, (shape, attention) in enumerate(levels):
        y, inset = 62 + i * 84, i * 52
        x_down, x_up = left + inset, right - inset
        blocks = lambda n: f"{n} residual blocks" + (f",\n{n} transformers" if attention else "")
        d.box(x_down, y, width, height + 8, f"{shape}\n{blocks(2)}", size=13)
        d.box(x_up, y, width, height + 8, f"{shape}\n{blocks(3)}", size=13)
        d.arrow([(x_down + width, y + 32), (x_up, y + 32)], SKIP, dashed=True)
        if i < 3:
            d.arrow([(x_down + width / 2 + 40, y + height + 8), (x_down + width / 2 + 40, y + 84)])
            d.arrow([(x_up + width / 2 - 40, y + 84), (x_up + width / 2 - 40, y + height + 8)])
    d.text(145, 24, "latents 4 × 64 × 64", weight="bold")
    d.arrow([(145, 30), (145, 62)])
    d.text(152, 50, "conv_in", 11, anchor="start")
    d.arrow([(755, 62), (755, 30)])
    d.text(762, 50, "conv_out", 11, anchor="start")
    d.text(755, 24, "noise 4 × 64 × 64", weight="bold")
    d.text(450, 82, "12 results on a stack; each level on the way up takes 3", 12, colour=SKIP)
    x_last, y_last = left + 3 * 52 + width / 2, 62 + 3 * 84 + height + 8
    d.arrow([(x_last, y_last), (x_last, 425), (365, 425)])
    d.box(365, 398, 170, 56, "1280 × 8 × 8\nmiddle: residual block,\ntransformer, residual block", size=12)
    x_up = right - 3 * 52 + width / 2
    d.arrow([(535, 425), (x_up, 425), (x_up, y_last)])
    d.text(30, 330, "time t", weight="bold", anchor="start")
    d.text(30, 347, "to every residual block", 11, anchor="start")
    d.text(30, 385, "text 77 × 768", weight="bold", anchor="start")
    d.text(30, 402, "to every transformer", 11, anchor="start")
    d.text(192, 140, "stride 2", 11, anchor="start", colour="#666666")
    d.text(722, 140, "size × 2", 11, anchor="start", colour="#666666")
    d.save("33_u.svg")


def the_halves():
    d = Drawing(980, 300)
    y, h = 60, 70
    d.box(20, y, 105, h, "picture\n3 × 512 × 512", DATA)
    d.box(165, y, 150, h, "encoder\n128, 256, 512, 512\nchannels, size / 8")
    d.box(355, y - 34, 115, 52, "mean\n4 × 64 × 64", DATA)
    d.box(355, y + 52, 115, 52, "log-variance\n4 × 64 × 64", DATA)
    d.box(520, y, 120, h, "latents\nmean + σ · noise", DATA)
    d.box(680, y, 150, h, "decoder\n512, 512, 256, 128\nchannels, size · 8")
    d.box(865, y, 105, h, "picture\n3 × 512 × 512", DATA)
    middle = y + h / 2
    d.arrow([(125, middle), (165, middle)])
    d.arrow([(315, middle - 8), (335, middle - 8), (335, y - 8), (355, y - 8)])
    d.arrow([(315, middle + 8), (335, middle + 8), (335, y + 78), (355, y + 78)])
    d.arrow([(470, y - 8), (495, y - 8), (495, middle - 10), (520, middle - 10)])
    d.arrow([(470, y + 78), (495, y + 78), (495, middle + 10), (520, middle + 10)])
    d.arrow([(640, middle), (680, middle)])
    d.arrow([(830, middle), (865, middle)])
    d.text(580, 195, "normal noise", 12)
    d.arrow([(580, 180), (580, 132)])
    d.box(450, 232, 260, 48, "U-Net\nworks here, on latents · 0.18215")
    d.arrow([(660, 232), (660, 215), (620, 215), (620, 132)], SKIP, dashed=True)
    d.text(240, 24, "reads 786,432 values", 12)
    d.text(580, 24, "keeps 16,384", 12)
    d.save("34_halves.svg")


def the_parts():
    d = Drawing(980, 330)
    d.box(20, 40, 130, 50, "prompt\n“a red fox in snow”", DATA)
    d.box(20, 120, 130, 50, "negative prompt\n“” or “blurry”", DATA)
    d.box(190, 75, 110, 56, "tokenizer\n77 numbers")
    d.box(340, 75, 130, 56, "text encoder\n77 × 768 each")
    d.box(20, 230, 130, 56, "seed\nnoise 4 × 64 × 64", DATA)
    d.box(400, 206, 190, 104, "U-Net\nnoise for the prompt,\nnoise for the negative one")
    d.box(640, 220, 130, 76, "guidance\nu + g · (t − u)", DATA)
    d.box(545, 75, 180, 60, "sampler\none step of 20 to 50:\na lower noise level")
    d.box(810, 75, 150, 60, "VAE decoder\nonce, at the end")
    d.text(885, 192, "picture 3 × 512 × 512", weight="bold")
    d.arrow([(150, 65), (170, 65), (170, 95), (190, 95)])
    d.arrow([(150, 145), (170, 145), (170, 112), (190, 112)])
    d.arrow([(300, 103), (340, 103)])
    d.arrow([(430, 131), (430, 206)])
    d.arrow([(150, 258), (400, 258)])
    d.arrow([(590, 258), (640, 258)])
    d.arrow([(705, 220), (705, 135)])
    d.arrow([(565, 135), (565, 206)], SKIP)
    d.text(573, 175, "again", 12, colour=SKIP, anchor="start")
    d.arrow([(725, 105), (810, 105)])
    d.arrow([(885, 135), (885, 174)])
    d.text(270, 248, "latents", 12)
    d.text(438, 172, "both texts", 12, anchor="start")
    d.save("35_parts.svg")


the_small_u()
the_u()
the_halves()
the_parts()
