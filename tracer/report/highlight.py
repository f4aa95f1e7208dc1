"""Python source in; highlighted HTML with line numbers, and the style sheet for it, out."""

from __future__ import annotations

from collections.abc import Collection

from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import PythonLexer, TextLexer, get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]

LIGHT, DARK = "friendly", "github-dark"


def highlight_python(source: str, *, first_line: int = 1, marked: Collection[int] = ()) -> str:
    """Return source as HTML: its lines numbered from `first_line`, those in `marked` stand out."""
    formatter = HtmlFormatter(
        cssclass="code",
        linenos="inline",
        linenostart=first_line,
        hl_lines=[line - first_line + 1 for line in sorted(marked)],
        wrapcode=True,
    )
    lexer = PythonLexer(stripnl=False, ensurenl=False)
    return str(highlight(source, lexer, formatter))


def highlight_code(source: str, language: str, _attributes: str = "") -> str:
    """Return code in any language as HTML, for Markdown's fences; as it is if it is not known."""
    try:
        lexer = get_lexer_by_name(language.lower()) if language else TextLexer()
    except ClassNotFound:
        lexer = TextLexer()
    formatter = HtmlFormatter(nowrap=True)
    shown = highlight(source, lexer, formatter)
    return f'<pre class="code"><code>{shown.rstrip()}</code></pre>\n'


def highlight_css() -> str:
    """Return the style sheet for highlighted code, for light and for dark."""
    light, dark = (_definitions(style) for style in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _definitions(style: str) -> str:
    """Return a style's rules for tokens; the page itself sets what lies around them."""
    formatter = HtmlFormatter(style=style)
    return "\n".join(formatter.get_token_style_defs(".code"))
