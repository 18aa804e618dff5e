"""The report's HTML: nothing from outside becomes markup, and the page asks nobody for anything."""

import pytest
from reported_folders import PageReader

from vdvae_lr.report.html import FIRST_LINE, Html, boxes, element, folded, page, section, table, with_code

HOSTILE = "<script>alert('a')</script>\"&"


@pytest.mark.parametrize(
    "made",
    [
        element("p", HOSTILE),
        element("p", element("em", HOSTILE)),
        element("p", "", title=HOSTILE),
        table([HOSTILE], [[HOSTILE]], HOSTILE),
        folded(HOSTILE, HOSTILE),
        boxes("charts", HOSTILE),
        section(HOSTILE, "name", HOSTILE),
        with_code(f"`{HOSTILE}` {HOSTILE}"),
        page(HOSTILE, HOSTILE),
    ],
)
def test_text_never_becomes_markup(made: str) -> None:
    read = PageReader(made)
    assert read.open == []
    assert "script" not in {tag for tag, _ in read.elements}
    assert HOSTILE in read.texts or HOSTILE in [value for _, each in read.elements for value in each.values()]


def test_markup_of_ours_stays() -> None:
    assert element("p", Html("a<br>b"), "<") == "<p>a<br>b&lt;</p>"
    assert element("img", src="data:,") == '<img src="data:,">'
    assert element("p", class_="note", aria_label="x") == '<p class="note" aria-label="x"></p>'


def test_code_is_between_backticks() -> None:
    assert with_code("run `a b` now") == "run <code>a b</code> now"


def test_empty_parts_are_left_out() -> None:
    assert section("Title", "name", Html(), Html()) == boxes("charts", Html()) == ""


def test_table_names_its_rows_and_columns() -> None:
    read = PageReader(table(["", "a"], [["rate", "1"]], "totals"))
    assert [(tag, each.get("scope")) for tag, each in read.elements if tag in ("th", "td")] == [
        ("td", None),  # names nothing
        ("th", "col"),
        ("th", "row"),
        ("td", None),
    ]
    (box,) = read.attributes("div")
    assert (box["class"], box["role"], box["aria-label"], box["tabindex"]) == ("scroll", "region", "totals", "0")


@pytest.mark.parametrize(("rows", "box"), [(30, "scroll"), (31, "scroll tall")])
def test_long_tables_scroll_in_their_box(rows: int, box: str) -> None:
    read = PageReader(table(["", "a"], [["rate", "1"]] * rows, "totals"))
    assert read.attributes("div")[0]["class"] == box


def test_page_needs_nothing_else() -> None:
    made = page("title", "content")
    read = PageReader(made)
    assert made.startswith(f"{FIRST_LINE}\n")
    metas = {each.get("http-equiv") or each.get("name"): each.get("content") for each in read.attributes("meta")}
    policy = {rule.split()[0]: rule.split()[1:] for rule in str(metas["Content-Security-Policy"]).split("; ")}
    assert policy["default-src"] == ["'none'"] and policy["img-src"] == ["data:"]
    assert not {"script-src", "connect-src", "font-src"} & policy.keys()
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in read.elements}
    assert "url(" not in made and "@import" not in made
