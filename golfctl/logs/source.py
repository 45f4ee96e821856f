"""Source code inside logs: many scripts print themselves first, and their f-strings and docstrings look like log lines.

Code is told from log by its lines alone, one by one, because logs are cut and damaged. What looks like log between two lines of
code is code; it counts as log once no code has followed for a while.
"""

from __future__ import annotations

import re

_OPEN = re.compile(
    r"import [\w.]+|from [\w.]+ import |(?:async )?def \w+\(|class \w+[(:]|@\w[\w.]*(?:\(|$)|if __name__ ?==|#!|\"\"\"|'''"
)
_FIRST = re.compile(r"[ru]?\"\"\"|[ru]?'''|#|import [\w.]+|from [\w.]+ import ")
_STATEMENTS = (
    r"import [\w.]+|from [\w.]+ import |(?:async )?def \w+\(|class \w+[(:]|@\w|return\b|raise [A-Z]\w*\(|assert |yield\b|global "
    r"|nonlocal |del \w|pass$|continue$|break$|self\.\w|# |#!|\"\"\"|'''|print\(|log0?\(f?[\"']|f[\"']"
)
_BLOCKS = (
    r"elif .*:|else:|try:|except\b.*:|finally:"
    r"|(?:with|for|while|if) .*:(?:\s*#.*)?$|(?:if|for|with) .*[(\[,]$|[)\]}]+[,:]?$"
)
_ASSIGNMENTS = (
    r"[A-Za-z_][\w.\[\]\"', ]*(?:: [\w\[\], |.]+)? [-+*/%|&]?=\s\S"
    r"|[A-Za-z_][\w.]*\((?:.*\)|.*,|)$|\w+=.*,$|[\"'][^\"']*[\"'],?$"
)
_CODE = re.compile(rf"\s*(?:{_STATEMENTS}|{_BLOCKS}|{_ASSIGNMENTS})")
_RULE = re.compile(r"={20,}\s*$")
PATIENCE = 120
"""Lines without any code after which what looked like log was log. The longest docstrings with examples are shorter."""
MANY = 10
"""So many progress lines in a row are no example."""


def opens(text: str, first: bool) -> bool:
    """Whether source code begins here. first: nothing but blank lines stood before."""
    return bool((_FIRST if first else _OPEN).match(text))


def is_code(text: str) -> bool:
    """Whether a line can only be Python."""
    return bool(_CODE.match(text))


def ends(text: str) -> bool:
    """Whether the ruler is drawn that scripts print after their code."""
    return bool(_RULE.match(text))
