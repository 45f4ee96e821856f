"""A program as text: as small as it goes, for readers, or compressed behind a line that unpacks it."""

from __future__ import annotations

import ast
import base64
import io
import lzma
import tokenize

from trainer.export.scopes import walk

_SKIPPED = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}


def undocumented(body: list[ast.stmt]) -> None:
    """Take out docstrings and other text that stands as a statement."""
    for node in (n for s in body for n in walk(s)):
        held = getattr(node, "body", None)
        if isinstance(held, list):
            node.body = [s for s in held if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def written(body: list[ast.stmt]) -> str:
    """The statements as Python writes them."""
    module = ast.fix_missing_locations(ast.Module(body, []))
    return ast.unparse(module) + "\n"


def squeezed(source: str) -> str:
    """The same program with no blank that it can do without. Raises AssertionError if it were not the same."""
    lines: list[tuple[int, str]] = []
    depth, text, last, rows = 0, "", None, source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            lines.append((depth, text))
            text, last = "", None
        elif token.type not in _SKIPPED:
            text += _between(last, token, rows) + token.string
            last = token
    found = _joined(lines)
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(source)), "squeezing changed the program"
    return found


def _between(last: tokenize.TokenInfo | None, token: tokenize.TokenInfo, rows: list[str]) -> str:
    """What has to stand between two tokens: a blank where they would run into each other."""
    if last is None:
        return ""
    if "FSTRING" in tokenize.tok_name[last.type] + tokenize.tok_name[token.type]:  # from Python 3.12 on
        same = last.end[0] == token.start[0]
        return rows[last.end[0] - 1][last.end[1] : token.start[1]] if same else ""
    ends, begins = last.string[-1], token.string[0]
    word = ends.isalnum() or ends == "_"
    if word and (begins.isalnum() or begins == "_"):
        return " "
    return " " if last.type == tokenize.NUMBER and begins == "." else ""


def _joined(lines: list[tuple[int, str]]) -> str:
    """Simple statements of one depth side by side, a blank a level."""
    out: list[tuple[int, str, bool]] = []
    for depth, text in lines:
        compound = text.endswith(":") or text.startswith("@")
        if out and out[-1][0] == depth and not out[-1][2] and not _opens(text):
            out[-1] = (depth, f"{out[-1][1]};{text}", compound)
        else:
            out.append((depth, text, compound))
    whole: list[tuple[int, str]] = []
    for place, (depth, text, compound) in enumerate(out):
        alone = place and out[place - 1][2] and out[place - 1][1].endswith(":") and out[place - 1][0] == depth - 1
        after = out[place + 1][0] if place + 1 < len(out) else 0
        if alone and not compound and after < depth and whole[-1][0] == depth - 1:
            whole[-1] = (depth - 1, whole[-1][1] + text)
        else:
            whole.append((depth, text))
    return "".join(f"{' ' * depth}{text}\n" for depth, text in whole)


_OPENERS = {"if", "for", "while", "def", "class", "try", "with", "else", "elif", "except", "finally", "async", "match"}


def _opens(text: str) -> bool:
    """Whether a line begins a statement with a block, which can't stand behind a semicolon."""
    word = text.partition(" ")[0].partition(":")[0].partition("(")[0].partition("[")[0].partition("'")[0]
    return text.startswith("@") or (word in _OPENERS and text.endswith(":"))


def compressed(source: str) -> str:
    """A script that unpacks and runs another one: lzma behind base 85, since a script has to be text."""
    data = source.encode()
    filters = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 20, "lp": 0}
    tried = [filters | {"lc": lc, "pb": pb} for lc in (0, 2, 3, 4) for pb in (0, 1)]
    best = min((lzma.compress(data, lzma.FORMAT_ALONE, filters=[one]) for one in tried), key=len)
    return f'import base64,lzma\nexec(lzma.decompress(base64.b85decode("{base64.b85encode(best).decode()}")))\n'


def headed(source: str, packages: tuple[str, ...]) -> str:
    """A script behind what it needs, as inline script metadata (PEP 723), which `uv run` and `pipx run` read."""
    needed = ",".join(f'"{package}"' for package in packages)
    return f'# /// script\n# requires-python = ">=3.11"\n# dependencies = [{needed}]\n# ///\n{source}'
