"""Links between the documents lead somewhere, and the index names every page."""

from pathlib import Path

import pytest
from docs_commands import DOCUMENTS, anchors, links, relative

from vdvae_lr.files.bundled import CHECKOUT_ROOT


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target), f"{link}: that page has {', '.join(sorted(anchors(target)))}"


def test_index_names_every_page() -> None:
    index = CHECKOUT_ROOT / "docs" / "README.md"
    folder = index.parent
    pages = {relative(path) for path in [*folder.glob("*.md"), *folder.glob("*/README.md")]} - {"docs/README.md"}
    linked = {relative((folder / link.partition("#")[0]).resolve()) for link in links(index)}
    assert pages - linked == set()


def test_main_page_leads_to_the_index() -> None:
    assert "docs/README.md" in {link.partition("#")[0] for link in links(CHECKOUT_ROOT / "README.md")}
