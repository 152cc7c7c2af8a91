"""Makes math.woff2, the font of the site's formulas: the letters and signs of TeX Gyre Pagella Math that lessons use.

    apt-get download fonts-texgyre-math && dpkg-deb -x fonts-texgyre-math_*.deb fonts
    pip install fonttools==4.68.0 brotli==1.2.1
    python3 math_font.py fonts/usr/share/texmf/fonts/opentype/public/tex-gyre-math/texgyrepagella-math.otf

A browser needs a font with a MATH table to place hats, stretch brackets and draw large sums, and few telephones have one.
Differences from the original (by B. Jackowski, P. Strzelczyk and P. Pianowski, under the GUST Font License): fewer signs,
another name, and the prime has the form that is meant for superscripts, which browsers don't choose by themselves.
"""

import pathlib
import sys

from fontTools import subset

CHARACTERS = [
    *range(0x20, 0x7F),  # ASCII
    *(0xA0, 0xAC, 0xAF, 0xB1, 0xB7, 0xD7, 0xF7, 0x2C6, 0x2C7, 0x2D9, 0x2DC),
    *range(0x302, 0x309),  # accents
    *range(0x391, 0x3AA),
    *range(0x3B1, 0x3CA),  # Greek
    *(0x3D1, 0x3D5, 0x3D6, 0x3F0, 0x3F1, 0x3F5),
    *range(0x2000, 0x200B),  # spaces
    *(0x2013, 0x2014, 0x2016, 0x2018, 0x2019, 0x201C, 0x201D, 0x2026, 0x2032, 0x2033, 0x2061, 0x2062, 0x2063),
    *(0x210E, 0x2102, 0x2115, 0x211A, 0x211D, 0x2124, 0x2113, 0x210B, 0x2112, 0x2131),
    *range(0x2190, 0x2196),  # arrows
    *(0x21A6, 0x21D0, 0x21D2, 0x21D4, 0x27F5, 0x27F6, 0x27F7, 0x27F8, 0x27F9, 0x27FA),
    *(0x2200, 0x2202, 0x2203, 0x2205, 0x2207, 0x2208, 0x2209, 0x220F, 0x2211, 0x2212, 0x2213, 0x2217, 0x2218, 0x2219),
    *(0x221A, 0x221D, 0x221E, 0x2223, 0x2225, 0x2227, 0x2228, 0x2229, 0x222A, 0x222B, 0x223C, 0x2243, 0x2245, 0x2248),
    *(0x2260, 0x2261, 0x2264, 0x2265, 0x226A, 0x226B, 0x2282, 0x2286, 0x2295, 0x2297, 0x2299, 0x22A4, 0x22A5, 0x22C5),
    *(0x22EE, 0x22EF, 0x22F1, 0x2308, 0x2309, 0x230A, 0x230B, 0x23DE, 0x23DF, 0x27E8, 0x27E9, 0x25E6, 0x2020),
    *range(0x1D400, 0x1D434),  # bold
    *range(0x1D434, 0x1D468),  # italic
    *(0x1D49C, 0x1D49E, 0x1D49F, 0x1D4A2, 0x1D4A9, 0x1D4AB, 0x1D4AF, 0x1D4B0, 0x1D4B3, 0x1D4B4, 0x1D53C, 0x1D540, 0x1D5B3),
    *range(0x1D6FC, 0x1D71C),  # italic Greek
    *range(0x1D6E2, 0x1D6FB),
]


def prime_for_superscripts(font):
    """Puts the prime's form for superscripts in the place of the ordinary one."""
    substitutions = font["GSUB"].table
    features = [f.Feature for f in substitutions.FeatureList.FeatureRecord if f.FeatureTag == "ssty"]
    for lookup in (substitutions.LookupList.Lookup[index] for index in features[0].LookupListIndex):
        for table in lookup.SubTable:
            for sign in (0x2032, 0x2033):
                forms = table.alternates.get(font.getBestCmap()[sign])
                for characters in (one.cmap for one in font["cmap"].tables if forms):
                    if sign in characters:
                        characters[sign] = forms[0]


def main(source):
    options = subset.Options(
        flavor="woff2",
        hinting=False,
        layout_features=["ssty", "dtls", "flac", "rtlm"],
        name_IDs=[0, 1, 2, 4, 5, 6],
        notdef_outline=True,
    )
    font = subset.load_font(source, options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    prime_for_superscripts(font)
    subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6):
            record.string = "minai-math" if record.nameID == 6 else "minai math"
    subset.save_font(font, str(pathlib.Path(__file__).with_name("math.woff2")), options)


if __name__ == "__main__":
    main(sys.argv[1])
