"""Cleaning of posts, rule by rule, and words for a bag of words."""

import sys
import types

import pytest

from modal_aware_jax.data.post_text import (
    clean_post,
    post_words,
    repair_mojibake,
    segment_chinese,
)

POSTS = {
    # links, whole and cut off by the stream
    "see http://t.co/a?b=1#c now": "see now",
    "HTTPS://x.y": "",
    "Visit www.example.com, now": "Visit now",
    "a day http:/…": "a day",
    "a day htt…": "a day",
    "https://t.cn/Rx1看这里！": "看这里!",
    "the http protocol": "the http protocol",
    "mother… home": "mother… home",
    # names, retweets and //
    "RT @user: So happy": "So happy",
    "//@某人:好看//@b: yes": "好看 yes",
    "write to a@b.com": "write to a@b.com",
    "and/or": "and/or",
    "RT this": "RT this",
    # [emoticons]
    "好[心][哈哈]看": "好 看",
    "[see here now]": "[see here now]",
    # hashtags
    "#BestDay of #my_life": "BestDay of my_life",
    "#故宫#真美": "故宫 真美",
    "#Temple of Heaven#wow": "Temple of Heaven wow",
    "#one#two#three": "one two three",
    "C# and 5#": "C# and 5#",
    # broken characters
    "cafÃ© â€œouvertâ€\x9d": "café “ouvert”",
    "so\ufffd na\u200bïve\x07": "so naïve",
    "? ?????? ? ????": "?",
    "what??": "what?",
    "fish &amp; chips": "fish & chips",
    # several languages, wide forms, emoji, white space
    "Привет,  мир": "Привет, мир",
    "ＡＢＣ！　ナイス": "ABC! ナイス",
    "👨\u200d👩\u200d👧 ❤️": "👨\u200d👩\u200d👧 ❤️",
    "नमस्ते\nدنیا": "नमस्ते دنیا",
    " \t\n": "",
}


@pytest.mark.parametrize("post", POSTS)
def test_a_rule_on_a_post(post):
    assert clean_post(post) == POSTS[post]
    assert clean_post(POSTS[post]) == POSTS[post]  # clean text stays


def test_each_choice_keeps_what_it_names():
    post = "@a likes #this [wow] http://x.y/z, it's re-read!"
    assert clean_post(post) == "likes this it's re-read!"
    assert "http://x.y/z" in clean_post(post, links=True)
    assert "@a" in clean_post(post, names=True)
    assert "[wow]" in clean_post(post, emoticons=True)
    assert "this" not in clean_post(post, hashtags=False)
    bare = clean_post("@a, it's re-read! 😀 50% #this", punctuation=False)
    assert bare == "it's re-read 😀 50 this"


def test_a_long_post_of_one_letter_is_quick():
    assert clean_post("a" * 20_000) == "a" * 20_000
    for piece in ("#a", "[", "? ", "@", "//", "Ã", "# a "):
        clean_post(piece * 5_000)


def test_mojibake_is_repaired_and_sound_text_stays():
    for sound in (
        "déjà vu à la carte, Ærø, MAÇÃO «CAFÉ» ÀÉÎ",
        "Привет мир",
        "你好，世界",
        "€ 5 – “quoted” … naïve™",
        "“Il est tombé…” «caffè»… « café\xa0» “MINHA IRMÔ",
        "😀👍🏽",
    ):
        assert repair_mojibake(sound) == sound
        broken = sound.encode("utf-8").decode("cp1252", "surrogateescape")
        if not any("\udc80" <= c <= "\udcff" for c in broken):
            assert repair_mojibake(broken) == sound
    assert repair_mojibake("CAFÃ‰ Ã©tÃ© â‚¬5 Â£3") == "CAFÉ été €5 £3"
    latin = "你好，世界 😀".encode().decode("latin-1")
    assert repair_mojibake(latin) == "你好，世界 😀"


def test_words_are_those_of_the_tokenizer_and_chinese_is_segmented(monkeypatch):
    fake = types.ModuleType("jieba")
    fake.setLogLevel = lambda level: None
    fake.lcut = lambda text: [text[i : i + 2] for i in range(0, len(text), 2)]
    monkeypatch.setitem(sys.modules, "jieba", fake)
    assert post_words("So happy, don't stop") == ["so", "happy", "don't", "stop"]
    assert post_words("北京故宫 2023年iPhone") == [
        "北京",
        "故宫",
        "2023",
        "年",
        "iphone",
    ]


def test_without_jieba_only_chinese_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    assert post_words("Привет мир, ナイス") == ["привет", "мир", "ナイス"]
    with pytest.raises(ImportError, match=r"pip install 'modal-aware-jax\[chinese\]'"):
        segment_chinese("故宫")


def test_a_missing_text_is_named():
    with pytest.raises(ValueError, match="expects a str, got NoneType"):
        clean_post(None)
