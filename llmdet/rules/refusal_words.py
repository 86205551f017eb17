"""How answers that are no captions read: refusals, echoes of a prompt, talk about the caption. In lower case."""

from __future__ import annotations

import re


def _any(*patterns: str) -> str:
    return "|".join(patterns)


_IMAGE = r"(?:image|picture|photo|photograph|file|attachment|region|area|object|box)s?"
_SEE = r"(?:describ|identif|recogni[sz]|caption|tell|make out|see|determin|say|process|provid|generat)\w*"
_GIVEN = r"(?:provided|attached|uploaded|available|found|included|received|accessible|loaded|displayed|shown|supported)"

# "I" and what it cannot, anywhere in a sentence.
_CANNOT = _any(
    r"\bi(?:'m| am|'ve been| was) (?:(?:really|very|so|just|only|also|truly|deeply|still|currently|not) )*"
    r"(?:an? |the )?(?:sorry|unable|able|afraid|ai\b|artificial|language model|large language|assistant|text-|allowed|"
    r"programmed|here to (?:help|assist)|comfortable|permitted|designed)",
    r"\bi(?: (?:really|simply|just|also|still|currently|must|have to|would|regrettably|respectfully|politely|do))* "
    r"(?:can ?not|can't|won't|will not|could not|couldn't|don't|not|didn't|did not|decline|apologi[sz]e|regret|lack|"
    r"need (?:to (?:see|view)|the|an|more)|refuse|have (?:no|not|difficulty)|wasn't|haven't)\b",
    r"\bi(?:'d| would) rather not\b",
    r"\bi can only (?:process|read|offer|help|work|handle|see text)",
    r"\bwe (?:apologi[sz]e|regret|cannot|can't|are (?:sorry|unable))\b",
    rf"\b(?:not possible|impossible|difficult|hard|unable) to (?!tell|see|say|determin)(?:\w+ )?{_SEE}",
    r"\b(?:difficult|impossible|hard|not possible) for me\b",
)
_SORRY = _any(
    r"^(?:(?:oh|oh no|hmm|um|well),? )*(?:my )?(?:(?:sincere|deepest) )?"
    r"(?:apologies\b|sorry(?:$|[,.!]| but| for| about| to| that| i\b))",
    r"^(?:error|exception|warning)\b ?[:\d]",
    r"^(?:unable|failed) to\b",
    r"^(?:regrettably|unfortunately), (?:the (?:request|image)|no |this )",
)
_NO_IMAGE = _any(
    rf"\b{_IMAGE}\b[^.]{{0,30}}?(?: not|n't|cannot|\bno)\b(?: been| be| yet)? "
    rf"(?:{_GIVEN}|load|come through|processed|opened|render|visible)",
    rf"^(?:the|this|your) {_IMAGE} (?:is|was|are) (?:not visible|unavailable|missing|corrupt\w*)",
    rf"\bno {_IMAGE} (?:(?:is|was|has|have|were|been) )*{_GIVEN}",
    rf"^(?:the )?{_IMAGE} (?:is )?(?:unavailable|missing)",
    rf"\bthere is no {_IMAGE} (?:provided|attached|to\b)",
    rf"\b{_IMAGE} (?:that )?you(?:'ve| have)? (?:just )?(?:sent|shared|uploaded|provided|attached|are referring)",
    r"\byou (?:forgot|didn't|did not|haven't|have not) (?:to )?(?:attach|upload|include|provide|send)",
    rf"\b(?:doesn't|does not|didn't|don't) (?:seem|appear) to be an? {_IMAGE}",
    r"\berror (?:with|while|when|loading|in loading)\b",
    rf"\btoo (?:small|dark|blurry|blurred|unclear|low|grainy) (?:for me )?to (?:be )?{_SEE}",
    rf"^without (?:the|an?) {_IMAGE},",
)
_ASSISTANT = _any(
    r"\bas (?:i am )?an? (?:\w+[- ]){0,3}?(?:ai|artificial intelligence|language model|assistant|llm)\b",
    r"\b(?:my|our|the safety|content|usage|safety) (?:\w+ )?(?:polic(?:y|ies)|guidelines|capabilit(?:y|ies)|training|"
    r"programming|abilities|knowledge cutoff|system)\b",
    r"\b(?:this|your|the) request (?:was|is|has|can|could|goes|violates|may)",
    r"\bviolat\w+ (?:our|my|the)\b",
    r"\bhow (?:can|may) i (?:help|assist)",
    r"\bthank you for (?:sharing|providing|uploading|the (?:image|picture|photo)|your)",
    r"\blet me try again",
    r"\b(?:assist|help)(?: you)? with (?:that|this)(?: request)?$",
)
_ASKING = _any(
    r"^(?:could|can|would|will) you (?:please )?(?:provide|upload|share|send|attach|clarify|try|re-?upload|specify)\b",
    r"^please (?:upload|share|note that i|try|attach|send|re-?upload|let me|check|clarify)\b",
    rf"^please provide (?:the|an?|more|your|me)(?: \w+)? (?:{_IMAGE}|context|information|details)\b",
)
REFUSAL = re.compile(_any(_CANNOT, _SORRY, _NO_IMAGE, _ASSISTANT, _ASKING))

# The whole caption, in any case.
PLACEHOLDER = re.compile(
    r"(?:n/?a|none|null|nil|unknown|undefined|nan|empty|blank|unclear|unrecogni[sz]able|todo|tbd|"
    r"no(?:t| (?:description|caption|answer|text|image|object|response|information))?"
    r"(?: (?:is |was )?(?:available|provided|given|possible|applicable|visible|found|detected|generated))?|"
    r"unable|sorry|cannot (?:tell|say|describe)|can't (?:tell|say|describe)|i don't know|[-?._*]+)[.!]?",
    re.I,
)

_SUBJECT = (
    r"(?:image|picture|photo|photograph|description|caption|sentence|words?|details?|region|box|assistant|"
    r"speculat\w+|guess\w*|instructions?|visible|scene)s?"
)
# At the beginning of a sentence.
ECHO = re.compile(
    _any(
        r"(?:(?:please|now|kindly|briefly|can you|could you|i want you to|you (?:should|must|need to|will)|then|also|"
        r"(?:task|instruction|prompt|question)s?:) )*"
        r"(?:describe|provide|write|generate|give|list|caption|summari[sz]e|identify|explain|do not|don't|avoid|"
        r"focus on|make sure|ensure|answer with|answer the|respond (?:with|in)|use only|include|mention|keep|"
        rf"return|output|start with|limit)\b(?=.*\b{_SUBJECT}\b)",
        r"you are (?:an?|the) (?:[\w-]+,? (?:and )?){0,5}?"
        r"(?:assistant|model|captioner|annotator|expert|ai|chatbot|system)\b",
        r"(?:your|the) (?:task|goal|job) is\b|in this task,|given (?:the|this|an) (?:image|picture|photo),? (?:and .*)?"
        r"(?:describe|write|generate|provide|produce|list|answer|caption)\b",
        r"(?:what|which|how many|where|who|whose) (?:\w+ ){0,3}?(?:is|are|does|do|can) [^?]{0,80}\?$",
        r"the user\b.{0,30}\b(?:wants?|asks?|asked|is asking|needs?|provided|requests?)",
        rf"(?:what|which|how many|where|who|whose|is there|are there|do you)\b.*\b(?:{_SUBJECT}|see)\b.*\?",
        r"(?:(?:okay|ok|alright|so|well|first|first of all|hmm|wait),? )*"
        r"(?:i (?:need to|have to|want to|should|will|was asked)|let me|let's|i'll)\b"
        r".{0,20}\b(?:describe|write|look at|analy[sz]e|caption|provide|think|start|create|break)",
        r"(?:ignore|disregard|forget) (?:all |any |the |your )*(?:previous|above|prior|earlier|instructions)",
        r"(?:caption|description|answer|label|phrase|output)s? ?:?$",
    )
)
# Anywhere, in the text as it is.
MARKERS = re.compile(
    _any(
        r"<image>|<\|(?:object_ref|box|quad|vision)_(?:start|end)\|>|<\|\w+_pad\|>|<\|?im_start|<\|?(?:user|assistant|system)\|?>|\[/?INST\]|<<SYS>>",
        r"</?(?:box|ref|quad|think|thinking|answer|tool_call|obj|point|img|s)\b[^<>\n]{0,40}>",
        r"(?:^|[.?!] )(?:USER|ASSISTANT|SYSTEM|Human|Assistant|User|Question|Answer|Instruction|Response|Q|A): ",
        r"^(?:Prompt|Task|Input|Output): ",
        r"\{\s*\"\w+\"\s*:|^\[\s*[\[{]|\[\d+(?:\.\d+)?(?:, ?\d+(?:\.\d+)?){3}\]",
        r"#+ ?(?:Instruction|Response|Human|Assistant)\b",
    ),
    re.M,
)

_TEXT = (
    r"(?:captions?|descriptions?|prompts?|bounding box(?:es)?|annotations?)(?: (?:above|below|provided|given))?"
    r"(?: of the (?:image|picture|photo|scene|region))?"
)
META = re.compile(
    _any(
        rf"\b(?:the|this|these|that|those|my|an?|your|both|all)(?: [\w-]+){{0,3}}? {_TEXT} "
        r"(?:also |only |accurately |already |clearly |itself |then )?"
        r"(?:is|are|was|were|has|have|had|does|do|did|can|could|should|would|will|might|may|must|accurately|describes?|"
        r"provides?|mentions?|focus(?:es)?|highlights?|captures?|says? (?:that|to)|gives?|aims?|includes?|refers?|"
        r"states?|avoids?|contains?|covers?|asks?|indicates?|details?|lists?|suggests?|emphasi[sz]es?|depicts?|notes?|"
        r"explains?|summari[sz]es?|corresponds?|match(?:es)?|tells?)\b",
        r"\b(?:according to|based on|mentioned in|stated in|described in|noted in|per|from|in|within|inside|by) "
        r"(?:the|this|these|your|my) (?:[\w-]+ ){0,2}?(?:caption|description|prompt|annotations?|bounding box(?:es)?|"
        r"list of objects|provided text)(?=$|[,.;:)]| (?:above|below|provided|given|we|it|the|there|is|are)\b)",
        r"\b(?:the|this) (?:provided|given|specified) (?:text|phrase|caption|label|list|description|box|boxes|"
        r"coordinates|region|bounding)",
        r"\bspecified coordinates\b|\bcoordinates\b.{0,30} (?:is|are) given\b",
        r"\b(?:phrase|label|term|word) _+ (?:[\w,]+ ){0,4}?(?:refers?|corresponds?|describes?)",
        r"\bword count\b ?:|\bcontains? (?:about |around |approximately |exactly )?\d+ words",
        r"^\(?note(?: that)?:?,? (?:the|this|my) (?:\w+ ){0,2}(?:caption|description)",
        r"^(?:this|here|that|it) is (?:an?|the|my) (?:[\w-]+,? ){0,4}?(?:description|caption)\b",
        r"\bmy (?:description|caption|answer)\b|^(?:the|these) instructions (?:say|ask|state|require|tell)",
        r"\bthe object in the (?:bounding )?box\b|\bthe prompt asks\b",
    )
)

# One of these words is in every refusal, echo and talk of a caption: most hold none.
REFUSAL_WORDS = frozenset(
    "i we you my our your sorry apology apologies apologize apologise error exception warning unable failed "
    "regrettably  unfortunately unavailable missing corrupt corrupted impossible difficult hard policy policies "
    "guidelines safety ai  artificial llm assistant language request content usage violate violates violating "
    "thank please possible too  without".split()
)
_NOT = frozenset("not no cannot t".split())
_IMAGE_WORDS = frozenset(
    word + end
    for word in "image picture photo photograph file attachment region area object box".split()
    for end in ("", "s", "es")
)
META_WORDS = frozenset(
    "caption captions description descriptions prompt prompts bounding annotation annotations instruction instructions "
    "coordinates phrase label term word words provided given specified box list answer".split()
)
ECHO_STARTS = frozenset(
    "please now kindly briefly can could i you then also task tasks instruction instructions prompt prompts "
    "question  questions describe provide write generate give list caption captions summarize summarise identify "
    "explain do don  avoid focus make ensure answer answers respond use include mention keep return output "
    "outputs start limit your the  what which how where who whose is are okay ok alright so well first hmm wait "
    "given in let i ll ignore disregard forget  description descriptions label labels phrase phrases".split()
)
# "The task is", "the user wants": other sentences that begin with "the" are not tried.
_THE = frozenset("task goal job user".split())
_LETTERS = re.compile(r"[^\W_]+")


def worth_reading(sentence: str) -> tuple[bool, bool, bool]:
    """Whether a lower-case sentence holds words of a refusal, of an echo, of talk about a caption."""
    words = _LETTERS.findall(sentence)
    some = frozenset(words)
    refusal = not REFUSAL_WORDS.isdisjoint(some) or not (_NOT.isdisjoint(some) or _IMAGE_WORDS.isdisjoint(some))
    echo = bool(words) and words[0] in ECHO_STARTS and (words[0] != "the" or not _THE.isdisjoint(some))
    return refusal, echo, not META_WORDS.isdisjoint(some)
