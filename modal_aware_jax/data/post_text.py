"""The text of social-media posts: what is cleaned away, and words for a bag of words.

Cleaning follows Zhang et al., SG-MFT (links, //, @names, [emoticons], punctuation),
each rule a choice of its own. Punctuation stays unless asked: text encoders read it.
Chinese has no spaces: words for a bag come from `jieba`, read on first use (the extra
`chinese`); word pieces and sentence vectors need none of it.
"""

import html
import re
import unicodedata

from modal_aware_jax.data.text import tokenize

# A stream cuts posts off: "http:/…", "ht…" at the end is what is left of a link.
_LINK = re.compile(
    r"(?:https?|ftp)(?::\S*|…)|\bwww\.\S+|\bht{0,2}p?s?:?/{0,2}…\s*$",
    re.IGNORECASE,
)
# Links end at the first character that no link has, where languages without spaces go
# on: https://t.cn/Rx1看这里.
_LINK_END = re.compile(r"[^\x21-\x7e…].*$", re.DOTALL)
_RETWEET = re.compile(r"(?:^|(?<=\s))RT(?=\s*@)")
_NAME = re.compile(r"(?<![\w.+-])@[\w·-]+(?:\s*:)?")
_EMOTICON = re.compile(r"\[[^\s\[\]@#/]{1,10}\]")
_CLOSED_TAG = re.compile(r"#(\w+(?:[ ·]\w+){0,5})#")
_TAG = re.compile(r"#(\w+)")
_SLASHES = re.compile(r"/{2,}")
_LOST = re.compile(r"(?:\?\s*){2,}")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e"
    "\u2060\ufeff\ufffd\ufffc]"
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")

# UTF-8 that was read as Windows-1252: a lead byte and as many trailing ones as it asks
# for. The characters that stand for bytes 0x80 to 0x9f there come first. Sound text has
# such pairs too: “IRMÔ, “tombé…”, « café ». So a capital and a closing mark are left
# alone, and letters that end words must come twice in a row.
_HIGH = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ\x80-\x9f"
_TRAIL = f"[{_HIGH}\xa0-\xbf]"
_MOJIBAKE = re.compile(
    f"(?:Â{_TRAIL}|Ã(?:(?<![A-ZÀ-Þ]Ã){_TRAIL}|(?![…”’»]){_TRAIL})|â{_TRAIL}{{2}}|"
    f"ð[Ÿ\x9f]{_TRAIL}{{2}}|(?:[ÐÑ]{_TRAIL}){{2,}}|(?:[à-ï]{_TRAIL}{{2}}){{2,}})+"
)


def repair_mojibake(text: str) -> str:
    """Undoes UTF-8 that was read as Windows-1252, where that is plain to see.

    Only runs that are whole UTF-8 sequences are read again, and those that cannot be
    stay as they are; text that never was broken has hardly any.

    Example:
      >>> repair_mojibake("cafÃ© â€œouvertâ€\x9d ðŸ˜€ déjà vu")
      'café “ouvert” 😀 déjà vu'
    """

    def byte(character):
        try:
            return character.encode("cp1252")
        except UnicodeEncodeError:
            return character.encode("latin-1")  # the five that Windows left open

    def again(match):
        try:
            return b"".join(map(byte, match.group())).decode("utf-8")
        except UnicodeDecodeError:
            return match.group()

    return _MOJIBAKE.sub(again, text)


def clean_post(
    text: str,
    *,
    links: bool = False,
    names: bool = False,
    emoticons: bool = False,
    hashtags: bool = True,
    punctuation: bool = True,
) -> str:
    """A post without what tells nothing about it; the choices say what is kept.

    Always: broken characters are repaired (`repair_mojibake`, "&amp;") or dropped
    (U+FFFD, control and invisible characters), runs of "?" that a stream left of lost
    letters and emoji shrink to one, so do spaces, "//" and the retweet's "RT" go, and
    wide forms become plain ones (NFKC). Letters of every script, digits and emoji stay.

    Args:
      text: the post.
      links: keep http://..., www. ... and what a cut post has left of one.
      names: keep @names.
      emoticons: keep [emoticons], as Weibo writes them.
      hashtags: keep #tags and Weibo's #tags with two#, as words without their signs.
      punctuation: keep punctuation. False leaves letters, digits, emoji and the "'" or
        "-" inside of a word.

    Returns:
      One line, possibly empty.

    Example:
      >>> clean_post("RT @user: So happy!! #BestDay ever ???? http://link")
      'So happy!! BestDay ever ?'
      >>> clean_post("#故宫#真美[心]//@某人: 好看 http://t.cn/x", punctuation=False)
      '故宫 真美 好看'
    """
    if not isinstance(text, str):
        raise ValueError(
            f"clean_post expects a str, got {type(text).__name__}. A post without "
            f'words is "".'
        )
    text = _INVISIBLE.sub("", html.unescape(repair_mojibake(text)))
    text = unicodedata.normalize("NFKC", text).replace("...", "…")
    if not links:
        text = _LINK.sub(_after_link, text)
    text = _RETWEET.sub(" ", text)
    if not names:
        text = _NAME.sub(" ", text)
    if not emoticons:
        text = _EMOTICON.sub(" ", text)
    if hashtags:
        text = _TAG.sub(r" \1 ", _CLOSED_TAG.sub(r" \1 ", text))
    else:
        text = _TAG.sub(" ", _CLOSED_TAG.sub(" ", text))
    if not links:
        text = _SLASHES.sub(" ", text)
    text = _LOST.sub("? ", text)
    if not punctuation:
        text = _without_punctuation(text)
    return " ".join(text.split())


def _after_link(match):
    rest = _LINK_END.search(match.group())
    return f" {rest.group()}" if rest else " "


def _without_punctuation(text):
    kept = []
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        inside = character in "'’-" and 0 < i < len(text) - 1
        if inside and text[i - 1].isalnum() and text[i + 1].isalnum():
            kept.append(character)
        # Letters, marks, numbers; of symbols emoji, their modifiers and joiners.
        elif category[0] in "LMN" or category in ("So", "Sk", "Cf"):
            kept.append(character)
        else:
            kept.append(" ")
    return "".join(kept)


def post_words(text: str) -> list[str]:
    """The words of a cleaned post for a bag of words, lower case, in their order.

    As `tokenize`; runs of Chinese characters are segmented by jieba.

    Example:
      >>> post_words("So happy BestDay")
      ['so', 'happy', 'bestday']

    Raises:
      ImportError: where the text has Chinese and jieba is not installed.
    """
    words = []
    for word in tokenize(text):
        at = 0
        for run in _HAN.finditer(word):
            words += [word[at : run.start()]] if run.start() > at else []
            words += segment_chinese(run.group())
            at = run.end()
        words += [word[at:]] if at < len(word) else []
    return words


def segment_chinese(text: str) -> list[str]:
    """Chinese text as its words, by jieba (the extra `chinese`).

    Japanese written in Chinese characters is cut too, by a Chinese dictionary.
    """
    try:
        import jieba
    except ImportError as error:
        raise ImportError(
            "segment_chinese: a bag of words of Chinese text needs jieba to find the "
            "words. Install it: pip install 'modal-aware-jax[chinese]'. Sentence "
            "vectors and word pieces need no words."
        ) from error
    jieba.setLogLevel(60)  # it announces its dictionary on standard error
    return [word for word in jieba.lcut(text) if word.strip()]
