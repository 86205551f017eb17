"""What stands as a clause of English, told from closed lists of words: enough for captions, no tagger needed."""

from __future__ import annotations

import re

from llmdet.nouns import COLOURS

BE = frozenset("is are was were has have had does do did can will would may might must could there's it's".split())
# What things and people do in pictures; words that mostly name things there (lights, plants, signs) are left out.
_BASES = (
    "accept act add adjoin adjust admire adorn affix aim appear apply approach arch arrange arrive ascend ask "
    "assume attach attend balance bark bask bathe beam bear become begin belong bend bite blend block bloom blow "
    "board bounce bow branch break bring browse brush build burn buy call capture carry carve cast catch celebrate "
    "change chase chat chew choose circle clap clean climb cling close coil collect comb come comfort compete "
    "complement complete comprise connect consist consult contain contemplate continue contrast convey converse "
    "cook cover crawl create cross crouch crowd cruise cry cuddle curve cut cycle dance decorate demonstrate depict "
    "descend dig dine dip direct disappear discuss display dive divide dominate drag drape draw drift drink drip "
    "drive drop dry eat embrace emerge encircle enclose engage enhance enjoy enter erupt evoke examine exit expect "
    "extend face fade fall feature feed fight fill find fish fit fix flank flap float flow fly fold follow forage "
    "form frame gallop gather gaze gesture get give glance gleam glide glow go grab graze greet grin grip grow "
    "guard guess guide hang happen hike hint hit hold hop hover hug hunt illustrate imply include indicate infer "
    "inspect interact jog join jump kayak keep kick kiss knead kneel knit know land lap laugh lay lead lean leap "
    "leave let lick lie lift line listen live load look loom loop lounge lower lurk make march mark meander meet "
    "melt mend merge mix mount move mow nap need nestle nibble nod obscure observe obstruct occupy offer open "
    "operate order outline overlap overlook own pack paddle paint park part pass pat pause paw pedal peek peel peer "
    "perch perform pet pick pitch place play plough plow pluck point polish portray pose pour practice practise "
    "pray prepare present press proceed protect protrude provide pull pump punch punctuate push put queue race "
    "raise rake reach read rear recede receive recline reflect rein relax release remain remove repair resemble "
    "rest reveal ride ring rise roam rock roll round row rub run rush sail say scatter scoop scratch scrub search "
    "see seem sell send separate serve set sew shade shake share shave shine shoot shout shovel show sing sip sit "
    "skate sketch ski sleep slice slide slip slope smell smile smoke snap sniff snow soak soar sound span sparkle "
    "speak speculate spill spin spit splash spoon sport sprawl spray spread sprinkle sprint sprout squat squeeze "
    "stack stand stare start state stay steam steer step stick stir stoop stop stretch stride stroll strum study "
    "suggest support suppose surf surround sway sweep swim swing switch swoop tackle take talk tap taper taste "
    "teach tear tell text throw tie tilt toast top toss touch tour tow tower trail transport train travel trim try "
    "tuck tumble turn twist type unload unwrap use vary vault visit wade wag wait walk want wash watch wave wear "
    "weave welcome whisper whistle wield wind wipe work wrap write yawn zip"
).split()
_IRREGULAR = "has does goes carries flies stood sat lay held wore hung began ran came".split()


def _third_person(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "ch", "sh", "x", "z", "o")) else "s")


_PLAIN = frozenset(_BASES)
VERBS = BE | _PLAIN | frozenset(map(_third_person, _BASES)) | frozenset(_IRREGULAR)
DETERMINERS = frozenset(
    "a an the one two three four five six several some many few both all each another this that these those his her "
    "their its it he she they there".split()
)
PREPOSITIONS = frozenset(
    "in on at by with near behind beside above below under over between from to along across inside outside around "
    "next against through atop within among amid toward towards beneath beyond for of onto into".split()
)
ARTICLES = frozenset("a an the his her their its my our your this these those no every each some any".split())
_SEEMING = frozenset("seem seems appear appears".split())
_NUMBERS = frozenset("two three four five six seven eight nine ten several many few".split())
_SUBJECTS = frozenset("they we you i people men women children both others all who some many".split())
_ING_NOUNS = frozenset(
    "building buildings ceiling painting railing awning wing string spring thing something everything king clothing "
    "drawing carving ring evening morning crossing landing opening clearing lighting writing lettering".split()
)
_ADVERBS_TOO = frozenset("above across along around behind below beneath beyond inside outside over through".split())
# No clause ends with one of these.
OPEN_ENDS = frozenset(
    "be been being not a an the and or nor but that which who whose his her their its our my your as than very if "
    "because while where when although though such".split()
) | (BE | PREPOSITIONS) - _ADVERBS_TOO - frozenset("do did can on in by over".split())
# After these a word that could be a verb is a noun, or the verb of another clause.
_NOUN_NEXT = frozenset([*PREPOSITIONS, *COLOURS, *"to a an the and or no that who which what whose".split()])
_PERHAPS_VERB = re.compile(r"[a-z]{2}[^\W_aius]s$|[^aeiou]ies$")
_SINGULARS = frozenset("sports lens pants jeans shorts glasses goods news series species tights skis ones".split())
_NOT = re.compile(r"(?<=\w{2})n['\u2019]t$")
_WORD = re.compile(r"[\w'\u2019]+(?:-[\w'\u2019]+)*")


def verb_at(piece: str, start: int = 0, joined: bool = False) -> int:
    """Where the first finite verb after the first word begins, 0 for none; not after "to".

    `joined`: the subject is joined from several, so that "a third one lie" has its verb.
    """
    before = earlier = ""
    single = end = 0  # words since "a" or "an" without a preposition: no plural can follow there
    for word in _WORD.finditer(piece, start):
        low = word[0].lower()
        if low.endswith("t"):
            low = _NOT.sub("", low)
        if before and low in VERBS:
            goes_on = piece.startswith(",", end) and (low in BE or low not in _PLAIN or joined or low in _SEEMING)
            if goes_on or _is_verb(low, before, earlier, joined):
                return word.start()
        elif single > 1 and _PERHAPS_VERB.search(low) and low not in _SINGULARS:
            return word.start()
        end = word.end()
        single = 1 if low in ("a", "an", "another") else single and single + 1
        if low in _NOUN_NEXT - ARTICLES or piece.startswith(",", end):
            single = 0
        if not low.endswith("ly") or not before:
            before, earlier = low, before
    return 0


def _is_verb(word: str, before: str, earlier: str, joined: bool) -> bool:
    sure = word in BE or word in _SEEMING
    if before in _NOUN_NEXT and not (sure and (before in COLOURS or (before in _ADVERBS_TOO and earlier))):
        return False
    if sure:
        return True
    if before in ARTICLES or before in _NUMBERS or (before.endswith("ing") and before not in _ING_NOUNS):
        return False  # "their faces", "wearing swim trunks"
    if word not in _PLAIN:
        return True
    if earlier in ("that", "which", "who"):
        return False  # the verb of the relative clause was before
    return (
        joined or before in _SUBJECTS or (before.endswith("s") and not before.endswith(("ss", "us", "'s", "\u2019s")))
    )


def starts_with_verb(piece: str) -> bool:
    """Whether the piece goes on with a verb whose subject stands before it: " are playing in a hall"."""
    words = piece.split(None, 1)
    return bool(words) and words[0].lower() in VERBS


def complete(clause: str) -> bool:
    """Whether the words stand as a clause: a finite verb, and no end that asks for more."""
    words = clause.lower().split()
    # A piece after a comma may begin with its verb.
    verb = bool(verb_at(clause)) or (clause[:1].isspace() and starts_with_verb(clause))
    return len(words) > 1 and verb and closed(clause)


def closed(text: str) -> bool:
    """Whether the last word can end a phrase."""
    words = text.lower().split()
    return bool(words) and words[-1].strip("'\"\u201c\u201d(") not in OPEN_ENDS
