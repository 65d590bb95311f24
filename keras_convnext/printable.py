"""Escapes external text, such as file names and server responses, for display."""

import re
import unicodedata

# Control and format characters, which may reorder or hide text, surrogates and line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji


def printable(text: object) -> str:
    """Escapes characters that are invisible, or change how the text around them is shown."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        else character
        for character in text
    )


class PrintableMessage(Exception):
    """A base of errors and warnings that escapes their messages, which contain names of files."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class PrintableError(PrintableMessage, ValueError):
    """An error with an escaped message, which is safe to show in a terminal."""


def without_login(url: str) -> str:
    """Returns an address without the user and the password in it."""
    return re.sub(r"^([\w+.-]+://)?[^/]*@", r"\1", url)
