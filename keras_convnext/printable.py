"""Text from outside, such as names of files and answers of servers, as a terminal may show it."""

import unicodedata

# They change the direction in which what follows is shown.
_BIDI = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of pairs, separators of lines


def printable(text: object) -> str:
    """Returns a text with escapes for what a terminal would obey or a person could not see."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _BIDI or unicodedata.category(character) in _UNSEEN
        else character
        for character in str(text)
    )


class PrintableError(ValueError):
    """An error whose message a terminal may show, whatever names are in it."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))
