"""Card numbers, which are none of our business: how to know one, so as to refuse it and never to log it. Pure."""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any
from urllib.parse import unquote_plus

SHORTEST, LONGEST = 13, 19  # digits, ISO/IEC 7812

# Digits in groups as people write them, one separator between two: also what keyboards and documents make of a blank
# or a hyphen.
_GROUPS = re.compile(r"\d+(?:[ \t.\-_/\u00a0\u2007\u2009\u200b\u2010-\u2015\u202f\u2212]\d+)*")
_DIGITS = re.compile(r"\d+")

# Where issuers' numbers begin and how long they are: Visa, Mastercard and Mir, American Express, Diners Club, Maestro,
# JCB, Discover, UnionPay. Times in ms, µs or ns since 1970 begin with 1.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}"
    r"|(?:50|5[6-8]|6[0-9])\d{11,17}|35\d{14,17}|(?:62|81)\d{14,17}"
)
# Within other text: digits in one run or grouped as on the card, which no UUID, number with a fraction, or identifier
# is.
_SOME = re.compile(r"\d{4}[ -]?\d{4}")  # what most texts lack
_PRINTED = re.compile(
    r"(?<![\w.])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5})(?!\w)"
)


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of a doubled digit's digits


def masked(text: str, mask: str) -> str:
    """``text`` with ``mask`` where it holds a number that an issuer may have given out."""
    if len(text) < SHORTEST or _SOME.search(text) is None:
        return text
    return _PRINTED.sub(lambda found: mask if issued(found[0]) else found[0], text)


def issued(text: str) -> bool:
    """Whether these digits, grouped or not, are a number that an issuer may have given out."""
    digits = [int(character) for character in text if character.isdecimal()]
    return _ISSUED.fullmatch("".join(map(str, digits))) is not None and len(digits) in _valid_lengths(digits)


def held(value: Any) -> bool:
    """Whether a JSON value holds, anywhere and however grouped, 13 to 19 digits that pass Luhn's check.

    Keys count too, and what is written in a URL's way. Stricter than ``issued``, since nothing is lost by it: of all
    such numbers only 13 digits that begin with 1 are let through, milliseconds of our time and no issuer's.
    """
    return any(_in_text(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """Every text and number in a value, at any depth: by a stack, since a hostile one is deeper than Python's own."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            left += [*found.keys(), *found.values()]
        elif isinstance(found, list):
            left += found
        elif isinstance(found, str):
            yield found
            if "%" in found:
                yield unquote_plus(found)
        elif isinstance(found, float):
            yield f"{found:.0f}"
        elif isinstance(found, int):
            yield str(found)


def _in_text(text: str) -> bool:
    return any(_in_groups(_DIGITS.findall(found[0])) for found in _GROUPS.finditer(text) if len(found[0]) >= SHORTEST)


def _in_groups(groups: list[str]) -> bool:
    """Whether neighbours are such a number together: beside it may stand its expiry and its code."""
    digits = [int(digit) for group in groups for digit in group]
    edges = {0, *accumulate(len(group) for group in groups)}
    return any(
        start + length in edges
        for start in edges
        for length in _valid_lengths(digits[start : start + LONGEST])
        if not (length == SHORTEST and digits[start] == 1)
    )


def _valid_lengths(digits: list[int]) -> Iterator[int]:
    """How many of these, from the first on, end in the check digit of the others (Luhn; ISO/IEC 7812-1, annex B).

    Every second one counts double, from the last but one backwards: which those are is known at the end only, so both
    sums are kept.
    """
    sums = [0, 0]
    for place, digit in enumerate(digits):
        sums[place % 2] += _DOUBLED[digit]
        sums[1 - place % 2] += digit
        length = place + 1
        if SHORTEST <= length <= LONGEST and sums[length % 2] % 10 == 0:
            yield length
