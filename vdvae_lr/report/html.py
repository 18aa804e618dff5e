"""HTML that cannot be broken from outside: every text is escaped, unless it was made by this module.

Names of runs, settings and sentences in files are other people's text.
"""

from collections.abc import Iterable, Sequence
from html import escape

from vdvae_lr.report.style import STYLE

FIRST_LINE = "<!DOCTYPE html><!-- vdvae-lr report -->"
"""What tells a report from another file."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: the page fetches nothing and runs nothing, whatever gets into it."""
_MANY_ROWS = 30  # more are not shown at once
_VOID = frozenset({"br", "img", "meta"})


class Html(str):
    """Markup that is safe as it is."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | int) -> Html:
    """`<tag attributes>content</tag>`; content that is no `Html` is escaped.

    Args:
        tag: its name.
        content: what lies in it, in order.
        attributes: by name; `class_` is class, `aria_label` is aria-label.
    """
    words = (f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for name, value in attributes.items())
    opening = f"<{tag}{''.join(words)}>"
    return Html(opening if tag in _VOID else f"{opening}{joined(content)}</{tag}>")


def joined(pieces: Iterable[str]) -> Html:
    """Pieces one after the other; those that are no `Html` are escaped."""
    return Html("".join(piece if isinstance(piece, Html) else escape(piece) for piece in pieces))


def with_code(text: str) -> Html:
    """A sentence in which `…` is code."""
    pieces = text.split("`")
    return joined(element("code", piece) if number % 2 else piece for number, piece in enumerate(pieces))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], name: str, *, class_: str = "") -> Html:
    """A table in a box of its own, which scrolls where the screen is narrow; the first cell of a row names it.

    Args:
        head: the columns' names.
        rows: cells of each row, as many as `head`.
        name: what the table is, for those who hear it.
        class_: of the table, for its looks.
    """
    heads = element("tr", *(element("th", cell, scope="col") if cell else element("td") for cell in head))
    lines = (
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    )
    body = list(lines)
    content = element("table", element("thead", heads), element("tbody", *body), class_=class_)
    box = "scroll tall" if len(body) > _MANY_ROWS else "scroll"
    return element("div", content, class_=box, role="region", tabindex=0, aria_label=name)


def boxes(class_: str, *content: str) -> Html:
    """Pieces laid out together; nothing where there is none."""
    inside = joined(content)
    return element("div", inside, class_=class_) if inside else inside


def folded(summary: str, *content: str) -> Html:
    """What shows its content when asked to."""
    return element("details", element("summary", summary), *content)


def section(title: str, name: str, *content: str) -> Html:
    """A part of the page under a heading that links can point to; nothing where there is no content."""
    inside = joined(content)
    return element("section", element("h2", title), inside, id=name) if inside else Html()


def page(title: str, *content: str) -> str:
    """A whole document that needs nothing else: no script, no file, no network."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    return f"{FIRST_LINE}\n{element('html', head, element('body', element('main', *content)), lang='en')}\n"
