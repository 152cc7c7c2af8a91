#!/usr/bin/env python3
"""Makes tokenizer_texts.json: texts of every script, and what open_clip's SimpleTokenizer makes of them.

    python3 make_tokenizer_texts.py OUT.json [COUNT [SEED]]

needs open_clip_torch and ftfy. The texts are made here, by rule and by chance. Those that ftfy would take for mis-decoded
text and repair are left out: that is the one thing which minai's tokenizer does not do. So are characters that Python's
own Unicode tables do not know yet."""
import json
import random
import sys
import unicodedata

import ftfy
from open_clip.tokenizer import SimpleTokenizer

GREETINGS = [
    "A photograph of an astronaut riding a horse", "Ein Bild von einem schönen großen Fuß", "C'est déjà l'été, où êtes-vous ?",
    "¿Dónde está el niño? ¡Mañana!", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Árvíztűrő tükörfúrógép", "İstanbul'da ılık bir gün",
    "Καλημέρα κόσμε, ΟΔΟΣ ΟΔΥΣΣΕΥΣ", "Съешь ещё этих мягких булочек", "Щебет їжака", "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "۱۲۳ سلام دنیا",
    "नमस्ते दुनिया क्षत्रिय", "ওহে বিশ্ব", "ਸਤ ਸ੍ਰੀ ਅਕਾਲ", "નમસ્તે દુનિયા", "வணக்கம் உலகம்", "హలో ప్రపంచం", "ಹಲೋ ವಿಶ್ವ", "ഹലോ വേൾഡ്", "ආයුබෝවන්",
    "สวัสดีชาวโลก", "ສະບາຍດີ", "བཀྲ་ཤིས་བདེ་ལེགས།", "မင်္ဂလာပါ", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ", "ሰላም ልዑል", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᐃᓄᒃᑎᑐᑦ",
    "សួស្តី​ពិភពលោក", "ᠮᠣᠩᠭᠣᠯ", "こんにちは世界", "カタカナ ｶﾀｶﾅ ﾊﾞﾋﾞﾌﾞ", "你好，世界。", "繁體中文測試", "안녕하세요 세계", "한글", "ﾡﾢﾣ",
    "Tiếng Việt: Ở đây có phở", "ẅëïrd d̈ïäc̈r̈ïẗïc̈s̈", "Z̴̢̛a̷l̸g̶o̵", "𝒮𝒸𝓇𝒾𝓅𝓉 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟙𝟚𝟛", "ⅠⅡⅢ ⅳ ½ ¾ ² ³ ①②", "٣٤٥ १२३ 一二三", "ʻokina Hawaiʻi ʼn",
    "ΐ ΰ ᾳ ᾴ ῗ", "ß ẞ STRASSE straße", "ﬁ ﬂ ﬀ ﬃ ﬄ ﬅ ﬆ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ Ĳ ĳ ŉ", "K Å Ω", "ſomething 'ſ", "ﷺ ﻻ",
]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "❤️", "☃", "1️⃣", "🤷🏾‍♀️", "🫠", "👨‍🚀🐎", "♥", "✈︎"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "–", "“", "”", "‘", "’", "‚", "„", "‹", "›", "«", "»", "‟", "‛", "ʼ", "•", "™", "©",
    "®", "°", "€", "£", "¥", "₿", "¶", "§", "†", "、", "。", "「", "」", "～", "！", "＆", "＜", "￥", "￦", "￣", "￨", "←", "→", "∞", "≠", "√", "¬", "¿", "...", "!!!", "?!", "--", "***"]
ENTITIES = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#x27;", "&nbsp;", "&eacute;", "&EACUTE;", "&SZLIG;", "&hellip;", "&amp;amp;", "&amp;lt;", "&amp;amp;amp;",
    "&amp;eacute;", "&copy", "&notin;", "&notit;", "&not", "&ampx", "&#169;", "&#x1F600;", "&#128;", "&#0;", "&#55357;", "&#99999999;", "&#7;", "&#x;", "&;", "&", "& ",
    "&unknown;", "&Aacute;", "&aacute", "&checkmark;", "&Jscr;", "&NTILDE;", "&nTILDE;", "&frac12;", "&FRAC12;", "&#59;", "&semi;", "&num;65;", "&lt", "&LT;", "&GT", "&AMP;",
    "&CounterClockwiseContourIntegral;", "&nvlt;", "&acE;", "&#x80;", "&#xFDD0;", "&#65279;", "&&amp;", "&#038;", "&apos;", "&bsol;", "&lsquo;", "&rdquo;", "&fjlig;"]
CONTROLS = ["\0", "\x01", "\b", "\t", "\n", "\x0b", "\x0c", "\r", "\r\n", "\x1b[31m", "\x1b[0m", "\x1b[1;2;33m", "\x1b[m", "\x1b", "\x1b]", "\x7f", "\xad", "\u200b", "\u200d",
    "\u200e", "\u202a", "\u2028", "\u2029", "\u2060", "\u206a", "\ufeff", "\ufff9", "\ufffc", "\ufffd", "\xa0", "\u1680", "\u2003", "\u202f", "\u3000", "\u180e", "\U000e0041", "\u034f"]
WORDS = ("don't we'll they're it's I'm you've he'd O'Neil rock'n'roll 'tis DON'T WE'LL THEY'RE it’s don’t ‘quoted’ “quoted” cat dog "
    "photograph of an oil painting by Rembrandt 4k 8.9 3/4 1,000,000 2024-01-01 a1b2c3 x^2 C++ e.g. U.S.A. foo_bar snake_case kebab-case https://example.com/a?b=c&d=e "
    "me@example.com #hashtag @user $5 100% 50°C <|startoftext|> <|endoftext|> <start_of_text> <end_of_text> <b>bold</b> </w> </W> <w> supercalifragilisticexpialidocious "
    "naïve café résumé Naïve ÅNGSTRÖM ñandú ＦＵＬＬ Ｗｉｄｔｈ １２３ ｆｕｌｌ！ 'S 'T 're'VE 'll'd s't '' ' ''s").split()


def main(path, count=400, seed=1):
    rng = random.Random(seed)
    tokenizer = SimpleTokenizer()
    pieces = [WORDS] * 6 + [EMOJI, EMOJI, PUNCTUATION, PUNCTUATION, ENTITIES, ENTITIES, CONTROLS, GREETINGS]

    def letter():
        block = rng.choice([(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x600), (0x600, 0x1100), (0x1100, 0x2000), (0x2000, 0x3000), (0x3000, 0x3400),
            (0x4E00, 0xA000), (0xA000, 0xD7A4), (0xF900, 0xFB50), (0xFB50, 0x10000), (0x10000, 0x11000), (0x1D400, 0x1D800), (0x1F000, 0x1FB00)])
        while unicodedata.category(c := chr(rng.randrange(*block))) in ("Cn", "Cs", "Co"):
            pass
        return c

    def made():
        kind = rng.randrange(8)
        if kind == 0:
            return "".join(letter() for _ in range(rng.randint(1, 12)))
        if kind == 1:
            return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 60)))
        if kind == 2:
            text = rng.choice(GREETINGS)
            return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)
        if kind == 3:
            return "".join(rng.choice(rng.choice([ENTITIES, WORDS, CONTROLS])) for _ in range(rng.randint(1, 6)))
        joined = [rng.choice(rng.choice(pieces)) for _ in range(rng.randint(1, 10))]
        return rng.choice(["", " ", " ", " ", "  ", "\n"]).join(joined)

    texts = ["", " ", "\n\n", "a" * 300, "ab" * 200, "the " * 40, "1234567890" * 6, "ha" * 33 + "!" * 50, "😀" * 20, "ü" * 70]
    texts += GREETINGS + ENTITIES + ["".join(EMOJI), " ".join(PUNCTUATION), "".join(PUNCTUATION), "x".join(CONTROLS), "x < y\n&amp; &lt;", "&amp;\nx < y\n&amp;"]
    cases, left_out = [], 0
    while texts or len(cases) < count:
        text = texts.pop(0) if texts else made()
        if ftfy.fix_text(text) != ftfy.fix_text(text, fix_encoding=False):
            left_out += 1
            continue
        cases.append([text, tokenizer.encode(text)])
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
    print(f"{len(cases)} texts; {left_out} left out, which ftfy would repair")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
