"""Texts on which the default encoder must agree with sentence-transformers: lengths, scripts, and odd cases."""

_SENTENCE = "Maths teaching is stuck in the 19th century, and fractals drawn with a turtle are one way out of it. "

SHORT = [
    "",
    " ",
    "\n\t",
    ".",
    "a",
    "vertical video",
    "How to fold a paper crane in 60 seconds",
    "BREAKING: goal in the 93rd minute!!!",
    "Don't touch that — it's hot",
    "3.14159, 2,718 and 1/137",
    "https://example.com/watch?v=W-n_Q2peq2M&t=42",
    "user@example.com #shorts @someone",
    "SHOUTING and whispering",
    "naïve café façade Zoë Ångström",
    "e\u0301 is é, decomposed",
    "ﬁ ﬂ ligatures and ½ fractions",
    "C++ > C, isn't it? :-)",
    "[CLS] a text that names [SEP] the marks [MASK] [PAD] [UNK]",
    "tabs\tand\nnew lines\r\nand\u00a0hard spaces",
    "zero\u200bwidth and soft\u00adhyphen",
    "nul \x00 and bell \x07 and replacement \ufffd",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
]

SCRIPTS = [
    "Wie man in einer Minute einen Knopf annäht",
    "Comment plier une grue en papier en soixante secondes",
    "Cómo hacer pan casero sin horno, paso a paso",
    "Як зварити борщ за годину",
    "Как починить велосипед за пять минут",
    "Πώς να φτιάξετε σπιτικό γιαούρτι",
    "Bir dakikada kahve nasıl yapılır? İstanbul usulü",
    "كيف تصنع خبزا في المنزل",
    "איך להכין לחם בבית",
    "घर पर रोटी कैसे बनाएं",
    "วิธีทำขนมปังที่บ้าน",
    "如何在家做面包",
    "自宅でパンを作る方法",
    "집에서 빵을 만드는 방법",
    "Cách làm bánh mì tại nhà",
    "ქართული ხაჭაპური",
    "mixed 日本語 and English και ελληνικά",
]

EMOJI = [
    "🎉",
    "🐱 cats 🐱 being 🐱 cats",
    "family 👨‍👩‍👧‍👦, flag 🇺🇦, skin tone 👍🏽",
    "❤️ vs ❤",
]

LONG = [
    _SENTENCE * 3,
    _SENTENCE * 11,  # just under 256 tokens
    _SENTENCE * 13,  # just over
    _SENTENCE * 400,
    "word " * 254,
    "word " * 255,
    "x" * 100,
    "x" * 101,
    "x" * 5000,
    " " * 5000 + "after a long silence",
    "日本語" * 200,
    "🎉" * 300,
]

TEXTS = SHORT + SCRIPTS + EMOJI + LONG

# What the ordinary suite checks without sentence-transformers.
GOLDEN_TEXTS = SHORT[::4] + SCRIPTS[::5] + EMOJI[:1] + LONG[1:5]
