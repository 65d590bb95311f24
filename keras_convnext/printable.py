"""Escapes external text, such as file names and server responses, for display in a terminal."""

import re
import unicodedata

# These change the direction of the text that follows.
_BIDI = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line separators


def printable(text: object) -> str:
    """Escapes control characters and other invisible characters."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _BIDI or unicodedata.category(character) in _UNSEEN
        else character
        for character in str(text)
    )


class PrintableError(ValueError):
    """An error with an escaped message, which is safe to show in a terminal."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


def without_login(url: str) -> str:
    """Returns an address without the user and the password in it."""
    return re.sub(r"^([\w+.-]+://)?[^/]*@", r"\1", url)
