"""Reading documents: blocks, marks, commands, links and anchors."""

from pathlib import Path

import pytest
from docs_commands import Block, Command, all_commands, anchors, commands_of, inline_code, links, read_blocks

PAGE = """\
# One `page`, for tests

Prose with `python train.py --iters 3` and `--fresh`, and
[a link](other.md#part) but not `[one](in_code.md)`.

<!-- run -->

    first --a 1  # don't stop at this apostrophe
    NAME=value second \\
        --b 'two words' | third > file && fourth …

    $ fifth <<'END'
    not a command
    END

<!-- file settings.toml -->

```toml
name = 1
```

```python
print("`no` span, [no](link.md)")
```

## One `page`, for tests
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("docs_commands.CHECKOUT_ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_know_their_language_place_and_mark(page: Path) -> None:
    found = [(block.line, block.language, block.mark) for block in read_blocks(page)]
    assert found == [(8, "", "run"), (19, "toml", "file settings.toml"), (23, "python", "")]
    assert read_blocks(page)[1].text == "name = 1\n"


def test_commands_come_without_comments_redirections_and_assignments(page: Path) -> None:
    assert all_commands(page) == [
        Command(page, 8, ("first", "--a", "1")),
        Command(page, 9, ("second", "--b", "two words")),
        Command(page, 9, ("third",)),
        Command(page, 9, ("fourth",)),
        Command(page, 12, ("fifth",)),
        Command(page, 0, ("python", "train.py", "--iters", "3")),
    ]


@pytest.mark.parametrize("mark", ["prints", "file notes.txt"])
def test_output_and_files_hold_no_commands(page: Path, mark: str) -> None:
    assert commands_of(Block(page, 1, "", "words of no command\n", mark)) == []


def test_code_is_no_prose(page: Path) -> None:
    assert inline_code(page) == ["page", "python train.py --iters 3", "--fresh", "[one](in_code.md)", "page"]
    assert links(page) == ["other.md#part"]


def test_anchors_are_those_of_the_headings(page: Path) -> None:
    assert anchors(page) == {"one-page-for-tests", "one-page-for-tests-1"}
