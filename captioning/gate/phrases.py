"""Know the phrases by which a model speaks of itself, repeats what it was asked, or opens without saying anything.

English alone: captions in other languages are told by their language, not by these.
"""

import re

_PICTURE = r"(?:image|picture|photo|photograph)s?"
_ABSENT = (
    r"(?:provided|attached|available|uploaded|given|included|shared|shown|visible|here|to (?:describe|see|view|show))"
)
REFUSALS = (
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|(?:ai )?assistant|vision model)\b",
    r"\bi(?:'m| am) (?:really |so |very |truly )?sorry\b",
    r"\bi(?:'m| am) (?:unable|not able|not allowed|not permitted|not programmed|just an? (?:ai|language model))\b",
    r"\bi (?:cannot|can not|can't|could not|couldn't|do not have|don't have|will not|won't|must not|may not)\b",
    r"\bi (?:do not|don't|did not|didn't|cannot|can't) (?:see|view|find|have|receive) (?:any|an|the|a) ?" + _PICTURE,
    r"\bi apologi[sz]e\b",
    r"\bmy apologies\b",
    r"\bunable to (?:see|view|process|describe|analy[sz]e|open|load|assist|help|provide|identify the " + _PICTURE + ")",
    rf"\bthere(?: is| are| was| were|'s| isn't| aren't| wasn't| is not| are not)(?: no| any| an)? {_PICTURE}"
    rf"(?: in (?:your|the) (?:message|prompt|question|request)| {_ABSENT}| *[.,;!]| *$)",
    rf"\bno {_PICTURE} (?:is |are |was |were |has been |have been )?{_ABSENT}",
    rf"\b(?:the|this|your) {_PICTURE} (?:is|was|could|did|has) not (?:{_ABSENT}|load|been|be (?:loaded|opened))",
    rf"\b(?:the|this|your) {_PICTURE} (?:failed|fails|cannot|can't|couldn't|doesn't) (?:to |be )?(?:load|display|open)",
    rf"^{_PICTURE} (?:is )?not (?:available|found|provided|loaded)\b",
    rf"\bplease (?:provide|upload|share|attach|send)\b[^.]{{0,40}}\b{_PICTURE}",
)
"""What a model says that does not describe, over a text in small letters without what is quoted in it."""
BOILERPLATE = (
    rf"(?:the|this) (?:{_PICTURE}|scene|artwork|painting|illustration) (?:is (?:of|a|an)|shows|showcases|depicts"
    r"|features|displays|captures|presents|portrays|contains|illustrates|represents|appears to)\b",
    rf"(?:in|within) (?:the|this) (?:{_PICTURE}|scene|frame)\b",
    rf"(?:this|here|it) is an? (?:\w+ )?{_PICTURE}\b",
    rf"an? (?:[\w-]+ )?{_PICTURE} (?:of|showing|depicting|featuring)\b",
    r"(?:here|in this|in the)[^,.]{0,20},? (?:we|you|one) (?:can|could|may)? ?(?:see|observe|have)\b",
    r"(?:sure|certainly|of course)[,!]",
)
"""Openings that say nothing of the picture."""
LEAKS = (
    r"\b(?:USER|ASSISTANT|SYSTEM|HUMAN|GPT)\s*:",
    r"<\|[^|<>]{1,40}\|>",
    r"</?(?:s|image|img|video|pad|unk|bos|eos|start_of_turn|end_of_turn|im_start|im_end)>",
    r"\[/?INST\]",
    r"###\s*(?:Human|Assistant|User|Instruction|Response)",
    r"<<\s*/?SYS\s*>>",
    r"(?m:^(?:Question|Answer|Instruction|Prompt|Caption|Alt text)\s*:)",
)
"""Marks of a chat's or a prompt's form, in letters as they stand."""
LEAK_WORDS = 6
"""Words in a row that a caption and its prompt's own words share where the prompt has leaked; fewer where the prompt
is shorter."""
MOST_LETTERS = 10_000
"""Of a caption that are looked at: ten times what any captioner is asked for."""
_WHOLE = re.compile('["\u201c\u2018\u00ab\']([^"\u201c\u201d]*)["\u201d\u2019\u00bb\']')
"""A caption that is one quotation as a whole quotes nobody."""
_REFUSAL = re.compile("|".join(REFUSALS))
_BOILERPLATE = re.compile("|".join(BOILERPLATE), re.IGNORECASE)
_LEAK = re.compile("|".join(LEAKS))
_QUOTED = re.compile(
    r"\"[^\"]{0,300}\"|\u201c[^\u201d]{0,300}\u201d|\u201e[^\u201c\u201d]{0,300}[\u201c\u201d]|\u00ab[^\u00bb]{0,300}\u00bb"
    r"|\u300c[^\u300d]{0,300}\u300d|(?<!\w)\u2018[^\u2018]{0,300}?\u2019(?!\w)|(?<!\w)'[^']{0,100}(?:'\w[^']{0,100}){0,5}'(?!\w)"
)
_REPORTED = re.compile(
    r"\b(?:says?|saying|said|reads?|reading|states?|stating|written|writes|writing|labell?ed|titled|captioned|printed|text"
    r"|words?|message|slogan|lettering|inscription|signs?|shirt|card|banner|poster|note|letter|book|bubble|screen)\b"
    r"[^.!?]{0,20}[\s:,\"\u201c\u201e\u2018']i\b[^.!?]{0,300}",
)
"""What a thing in the picture says, without quotation marks."""


def unquoted(text: str) -> str:
    """Return a text in small letters without what is quoted or reported in it: a sign may say "I'm sorry"."""
    line = " ".join(text[:MOST_LETTERS].split())
    whole = _WHOLE.fullmatch(line)
    plain = _QUOTED.sub(" ", whole[1] if whole else line).lower().replace("\u2019", "'")
    return _REPORTED.sub(" ", plain)


def refuses(text: str) -> bool:
    """Tell whether the model speaks of itself, declines, or says that there is no picture."""
    return bool(_REFUSAL.search(unquoted(text)))


def opens_emptily(text: str) -> bool:
    """Tell whether a caption opens with words that would fit any picture."""
    return bool(_BOILERPLATE.match(text.lstrip(" \t\n\"'*-")))


def leaks(text: str, words: list[str], asked: list[list[str]]) -> bool:
    """Tell whether a caption holds marks of a chat's form, or a run of its prompt's own words.

    `words`: the caption's; `asked`: the words of each piece of the prompt between its fields.
    """
    if _LEAK.search(text[:MOST_LETTERS]):
        return True
    joined = f" {' '.join(words)} "
    for piece in asked:
        length = min(LEAK_WORDS, len(piece))
        if length < 4:
            continue
        if any(f" {' '.join(piece[start : start + length])} " in joined for start in range(len(piece) - length + 1)):
            return True
    return False
