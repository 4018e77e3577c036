"""The texts of single tokens, one after the other, are the response."""

from srpo_verl.training.step.token_texts import TokenTexts


def test_the_pieces_are_the_response_whatever_the_tokenizer_does_to_single_tokens():
    """One whose decoder strips the first space of a text, and one whose tokens straddle characters."""
    words = ["\u2581the", "\u2581cats", "\u2581sat"]

    def stripping(ids):
        return "".join(words[i] for i in ids.tolist()).replace("\u2581", " ").removeprefix(" ")

    assert TokenTexts(stripping).of([0, 1, 2]) == ["the", " cats", " sat"]
    text = "\u65e5\u672c\u8a9e\u3067\u7b54"
    parts = [text.encode()[start : start + 2] for start in range(0, 15, 2)]

    def straddling(ids):
        return b"".join(parts[i] for i in ids.tolist()).decode(errors="replace")

    assert "".join(TokenTexts(straddling).of(list(range(len(parts))))) == text
