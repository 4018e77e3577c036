r"""One spelling for the many ways in which an answer is written: Unicode, fonts, sizes, spacing, brackets.

Nothing here changes what an answer means. Text stays marked as ``\text{...}``, because a letter in it may be a unit
while the same letter in a formula is a variable. All patterns are linear in the length of the text.
"""

from __future__ import annotations

import re
from unicodedata import normalize

_GREEK_LIST = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon phi
    chi psi omega
"""
_GREEK = _GREEK_LIST.split()
_GREEK_CAPITALS = frozenset({"gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega"})
_FRACTIONS = [chr(code) for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))]
_CHARACTERS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\ufe63": "-", "\uff0d": "-", "\uff0b": "+", "\u2217": "*",
        "\uff0c": ",", "\u3001": ",", "\uff1b": ";", "\uff1a": ":", "\u3002": ".", "\uff0e": ".", "\uff1d": "=",
        "\uff08": "(", "\uff09": ")", "\u3010": "[", "\u3011": "]", "\uff05": "%", "\u2032": "'", "\u2019": "'",
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u3000": " ", "\u200b": "", "\ufeff": "", "\u2060": "",
        "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": "/", "\u2044": "/", "\u2215": "/", "\u221e": r"\infty ",
        "\u2264": r"\leq ", "\u2265": r"\geq ", "\u2a7d": r"\leq ", "\u2a7e": r"\geq ", "\u2260": r"\neq ",
        "\u2208": r"\in ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2248": r"\approx ", "\u2205": r"\emptyset ",
        "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u211d": r"\mathbb{R}", "\u22c5": r"\cdot ", "\u2219": r"\cdot ",
        "\u00b0": r"^\circ ", "\u00ba": r"^\circ ", "\u02da": r"^\circ ", "\u2713": "", "\u2705": "",
        "\u221a": r"\sqrt ", "\u221b": r"\sqrt[3] ", "\u00b5": r"\mu ", "\u03d5": r"\phi ",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        **{chr(0x3B1 + place): rf"\{name} " for place, name in enumerate(_GREEK)},
        **{chr(0x391 + place): rf"\{name.title()} " for place, name in enumerate(_GREEK) if name in _GREEK_CAPITALS},
        **{char: r"\frac{" + normalize("NFKC", char).replace("\u2044", "}{") + "}" for char in _FRACTIONS},
    }
)  # fmt: skip
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f"
_SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u2099"
_RAISED = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, "0123456789+-n0123456789n")
_RAISED_RUN = re.compile(f"([{_SUPERSCRIPTS}]+)|([{_SUBSCRIPTS}]+)")

_TEXT = re.compile(
    r"\\(?:textnormal|textrm|textup|textbf|textit|textsf|texttt|text|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|"
    r"ensuremath|boldsymbol|bm|mbox|hbox|emph|underline|pmb|operatorname\*?)\s*\{"
)
_SIZES = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?)\s?\.|\\(?:tiny|scriptsize|small|normalsize|large|Large|LARGE|huge|Huge|"
    r"displaystyle|textstyle|scriptstyle|limits|nolimits|boldmath|bf|rm|it|sf|left|right|middle|[bB]igg?[lrm]?)"
    r"(?![a-zA-Z])"
)
_SIMPLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\(?:d|t|c|nice|s|flat)frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:text)?color\s?\{[\w!,.]{1,40}\}"), ""),
    (re.compile(r"\\(?:rm|bf|it|sf)\s?\{"), r"\\text{"),
    (re.compile(r"\{\s?\\(?:rm|bf|it|sf)\s([^{}]*)\}"), r"\\text{\1}"),
    (re.compile(r"\\(leq|geq)slant(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\var(epsilon|phi|theta|rho|sigma|kappa)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\(?:var)?nothing(?![a-zA-Z])|\\emptyset(?![a-zA-Z])|\\\{\s*\\\}"), r"\\{\\}"),
    (re.compile(r"\\[lr]?vert(?![a-zA-Z])"), "|"),
    (re.compile(r"\\lbrace(?![a-zA-Z])\s?"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])\s?"), r"\\}"),
    (re.compile(r"\\lbrack(?![a-zA-Z])\s?|\\lparen(?![a-zA-Z])\s?"), "["),
    (re.compile(r"\\rbrack(?![a-zA-Z])\s?"), "]"),
    (re.compile(r"\\langle(?![a-zA-Z])\s?"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])\s?"), ")"),
    (re.compile(r"\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"\\(?:degree|textdegree)(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"\\prime(?![a-zA-Z])|\^\{\\prime\}|\^\\prime(?![a-zA-Z])"), "'"),
    (re.compile(r"(?<=[\d.])\\(?:bar|dot|overline)\s?(?:\{(\d{1,40})\}|(\d))"), r"\\overline{\1\2}"),
    (re.compile(r"\\(?:bold)?mathbb\s?\{?\s?R\}?|\\R(?![a-zA-Z])|\\Reals(?![a-zA-Z])"), r"\\mathbb{R}"),
    (re.compile(r"(?<=\d)(?:\\[,;: ]|~|\{,\}|\s?\\thinspace\s?)(?=\d{3}(?!\d))"), ","),
)  # fmt: skip
_SPACES = re.compile(r"\\\\|\\[,;:! ]|~|\\(?:thin|med|thick|en)space(?![a-zA-Z])")
_QUAD = re.compile(r"\\q?quad(?![a-zA-Z])[ ]?")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ("*", "*"))
_UNIT_RATIO = re.compile(r"\\frac\s?\{\s?\\text\{([^{}]*)\}\s?\}\s?\{\s?\\text\{([^{}]*)\}((?:\^\d)?)\s?\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_FORMULA = re.compile(r"[^A-Za-z]*|[^A-Za-z]*[A-Za-z](?:[^A-Za-z]+[A-Za-z])*[^A-Za-z]*")
_MAX_ROUNDS = 6


def tidy(text: str) -> str:
    """``text`` in the one spelling; idempotent for what it knows."""
    text = _unwrap(_RAISED_RUN.sub(_scripts, text).translate(_CHARACTERS).strip())
    if "\\" in text or "~" in text:
        for pattern, replacement in _SIMPLE:
            text = pattern.sub(replacement, text)
        text = _SIZES.sub("", text)
        text = _spaces(text)
        text = _fonts(text)
        text = _UNIT_RATIO.sub(r"\\text{\1/\2}\3", text)
        text = _over(text)
        text = re.sub(r"\^\{\s?\\circ\s?\}", r"^\\circ ", text)
    if text.replace("\\$", "").count("$") % 2 == 0:
        text = re.sub(r"(?<!\\)\$", "", text)
    return _unwrap(_unbrace(text.strip()))


def _scripts(run: re.Match[str]) -> str:
    """Raised or lowered characters as an exponent or index."""
    text, up = run.group().translate(_RAISED), run.group(1)
    if len(text) > 1:
        return f"{'^' if up else '_'}{{{text}}}"
    return f"^{text}" if up else f"_{text} "


def matching_brace(text: str, start: int, end: int | None = None) -> int | None:
    """The index of the brace that closes the one at ``start``; escaped braces do not count. None when unclosed."""
    depth = 0
    for match in _BRACE.finditer(text, start, len(text) if end is None else end):
        depth += (match.group() == "{") - (match.group() == "}")
        if depth == 0:
            return match.start()
    return None


def _unwrap(text: str) -> str:
    """Without math delimiters, bold, backticks and a full stop around the whole."""
    for _ in range(_MAX_ROUNDS):
        before = text
        if not text.endswith(("a.m.", "p.m.")):
            dots = text.endswith(("..", "dots", "\u2026"))
            text = text.rstrip(";,: \n\t" if dots else ".;,: \n\t").removesuffix("\\\\").strip()
            text += " " if text.endswith("\\") and not text.endswith("\\\\") else ""
        for left, right in _WRAPPERS:
            inner = text[len(left) : -len(right)] if len(text) > len(left) + len(right) else ""
            if inner and text.startswith(left) and text.endswith(right) and left not in inner and right not in inner:
                text = inner.strip()
                break
        if text == before:
            break
    return text


def _spaces(text: str) -> str:
    """Spacing commands as a space or nothing; ``\\\\`` parts rows and stays; a quad parts two answers."""
    text = _SPACES.sub(lambda m: m.group() if m.group() == "\\\\" else "" if m.group() == "\\!" else " ", text)
    return _QUAD.sub(lambda m: ", " if m.start() and _starts_answer(text, m.end()) else " ", text)


def _starts_answer(text: str, position: int) -> bool:
    rest = text[position : position + 8].lstrip()
    return bool(rest) and (rest[0].isalnum() or rest[0] in "-([{" or rest.startswith(("\\frac", "\\sqrt", "\\{")))


def _fonts(text: str) -> str:
    r"""All font commands as ``\text{...}``; without it where the content is a formula, a connector, or everything."""
    pieces, last = [], 0
    for match in _TEXT.finditer(text):
        if match.start() < last:
            continue
        end = matching_brace(text, match.end() - 1)
        if end is None:
            break
        content = text[match.end() : end]
        pieces.append(text[last : match.start()])
        command = match.group().rstrip("{ ").removeprefix("\\")
        whole = not text[: match.start()].strip(" {") and not text[end + 1 :].strip(" }.")
        pieces.append(
            content if whole else _font(command, _TEXT.sub("{", content) if "\\" in content else content, pieces)
        )
        last = end + 1
    return "".join([*pieces, text[last:]])


def _font(command: str, content: str, before: list[str]) -> str:
    if re.match(r"\s*\(?\s?(?:or|and|,|;)(?![A-Za-z])", content):
        return f" {content} "
    letter = re.fullmatch(r"\s*\(?([A-Za-z])\)?\s*", content)
    if letter and (command in ("mathbf", "boldsymbol", "bm", "pmb", "mathit") or letter.group(1) in "eidxyz"):
        return f"{{{content.strip()}}}" if command != "text" or letter.group(1) in "ei" else content
    if letter:
        return f"\\text{{{content}}}"
    if command.startswith("operatorname"):
        return f"\\{content}" if content.isalpha() else content
    return content if _FORMULA.fullmatch(content) and len(content) < 200 else f"\\text{{{content}}}"


def _over(text: str) -> str:
    r"""``{a \over b}`` as ``\frac{a}{b}``, and ``{a \choose b}`` as ``\binom{a}{b}``."""
    for _ in range(_MAX_ROUNDS):
        match = re.search(r"\\(?:over|choose)(?![a-zA-Z])", text)
        if not match:
            break
        start = _opening(text, match.start())
        end = matching_brace(text, start) if start is not None else len(text)
        if end is None:
            break
        first = 0 if start is None else start + 1
        command = "\\frac" if match.group() == "\\over" else "\\binom"
        fraction = f"{command}{{{text[first : match.start()].strip()}}}{{{text[match.end() : end].strip()}}}"
        text = (text[:start] if start is not None else "") + fraction + text[end + 1 :]
    return text


def _opening(text: str, position: int) -> int | None:
    """The index of the innermost brace that is open at ``position``."""
    opened: list[int] = []
    for match in _BRACE.finditer(text, 0, position):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            opened.pop()
    return opened[-1] if opened else None


def _unbrace(text: str) -> str:
    r"""Without braces around the whole; ``{1,2}`` is meant as a set."""
    for _ in range(_MAX_ROUNDS):
        if not (text.startswith("{") and text.endswith("}") and matching_brace(text, 0) == len(text) - 1):
            break
        text = text[1:-1].strip()
        if "," in re.sub(r"\([^()]*\)|\{[^{}]*\}|(?<=\d),(?=\d{3}(?!\d))", "", text):
            return f"\\{{{text}\\}}"
    return text
