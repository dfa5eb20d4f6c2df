"""Docstrings as the site shows them: ``Errors: …`` is a paragraph, and no box with its first line as the title."""

import re
from typing import Any

from griffe import Extension, Object

_PARAGRAPH = re.compile(r"^([A-Z][a-z]+): (\S.*(?:\n[ \t]+\S.*)*)", flags=re.MULTILINE)


class DocstringParagraphs(Extension):
    """Writes each such paragraph with its name in bold and its lines joined."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of anything that has one."""
        if obj.docstring:
            obj.docstring.value = _PARAGRAPH.sub(_bold, obj.docstring.value)


def _bold(paragraph: re.Match[str]) -> str:
    return f"**{paragraph[1]}.** {' '.join(paragraph[2].split())}"
