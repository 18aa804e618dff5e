"""Which files of a folder are its images: links, what is left out and why, and what may not be read."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ordinary_permissions import without_permission
from PIL import Image
from refusals import refused

from vdvae_lr.datasets.finding import search
from vdvae_lr.datasets.folder import find_images, open_folder
from vdvae_lr.datasets.inventory import left_out_words
from vdvae_lr.errors import InputError

NOT_UTF_8 = os.fsdecode(b"caf\xe9.png")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, "PNG")
    return path


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        put(folder / name)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "root", "a.png", "own/b.png")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return fill(tmp_path / "elsewhere", "c.png", "below/d.png")


def test_linked_folders_and_files_are_followed(root: Path, elsewhere: Path) -> None:
    (root / "class").symlink_to(elsewhere)
    (root / "one.png").symlink_to(elsewhere / "below" / "d.png")
    (root / "own" / "relative.png").symlink_to(Path("..", "..", "far.png"))
    put(root.parent / "far.png")
    assert find_images(root) == ["a.png", "class/below/d.png", "class/c.png", "own/b.png", "own/relative.png"]


def test_a_folder_of_links_alone_and_a_linked_folder_itself_are_read(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(elsewhere)
    (tmp_path / "itself").symlink_to(tmp_path / "links")
    assert find_images(tmp_path / "links") == find_images(tmp_path / "itself") == ["a/below/d.png", "a/c.png"]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("loop", "loop"),  # to itself: nothing
        ("up", "."),
        ("own/up", ".."),
        ("own/deeper/up", "../.."),
        ("0", "own"),  # its name comes before that of the folder
        ("z", "own"),
    ],
)
def test_no_link_makes_the_search_endless_or_counts_an_image_twice(root: Path, link: str, target: str) -> None:
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(target)
    assert search(root).names == ["a.png", "own/b.png"]


def test_links_that_lead_to_each_other_end(root: Path, elsewhere: Path) -> None:
    (root / "there").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    assert find_images(root) == ["a.png", "own/b.png", "there/below/d.png", "there/c.png"]


def test_of_several_ways_to_one_folder_or_file_the_first_name_counts(root: Path, elsewhere: Path) -> None:
    for name in ("two", "one", "three"):
        (root / name).symlink_to(elsewhere)
    for name in ("y.png", "x.png"):
        (root / name).symlink_to(put(root.parent / "single.png"))
    (root / "link-to-own.png").symlink_to("a.png")
    found = search(root)
    assert found.names == ["a.png", "one/below/d.png", "one/c.png", "own/b.png", "x.png"]
    assert left_out_words(found.left_out) == (
        "2 × link to a folder that is read already, 2 × link to an image that is read already"
    )


def test_copies_and_hard_links_are_images_of_their_own(root: Path) -> None:
    os.link(root / "a.png", root / "again.png")
    assert find_images(root) == ["a.png", "again.png", "own/b.png"]


def test_only_regular_files_are_images_and_a_pipe_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "link-to-pipe.png").symlink_to("pipe.png")
    (root / "device.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        short = Path(os.path.relpath(root))  # the address of a socket has to be short
        server.bind(str(min(root / "socket.png", short / "socket.png", key=lambda path: len(str(path)))))
        put(root / "folder.png" / "inside.png")
        found = search(root)
    assert found.names == ["a.png", "folder.png/inside.png", "own/b.png"]
    assert found.left_out["pipe, socket or device"] == 4


def test_what_is_left_out_is_counted_by_its_reason(root: Path) -> None:
    for name in ("notes.txt", "own/more.TXT", "film.mp4", "README", ".DS_Store", "own/._b.png"):
        (root / name).write_text("no image")
    fill(root, ".thumbnails/a.png", ".thumbnails/b.png")
    found = search(root)
    assert found.names == ["a.png", "own/b.png"]
    assert found.left_out == {".txt": 2, ".mp4": 1, "file without an ending": 1, "hidden": 3}
    assert left_out_words(found.left_out) == "2 × .txt, 1 × .mp4, 1 × file without an ending, 3 × hidden"


def test_many_endings_and_folders_are_summed_up() -> None:
    counts = {f".{letter}": number for number, letter in enumerate("abcdefgh", 1)}
    assert left_out_words(counts) == "8 × .h, 7 × .g, 6 × .f, 5 × .e, 4 × .d, 6 with other endings"
    folders = {f"folder 'class {number:03}' beside 'train'": 1 for number in range(300)}
    assert len(left_out_words(folders)) < 600
    assert left_out_words(folders).endswith("288 of other kinds")


def test_a_folder_whose_images_are_all_of_another_kind_says_so(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.heic").write_text("an image of another kind")
    with refused(str(tmp_path), "holds no images (left out: 3 × .heic)", ".png"):
        find_images(tmp_path)


def test_a_link_to_nothing_is_named(root: Path) -> None:
    for name in ("gone.png", "lost"):
        (root / name).symlink_to(root.parent / "unmounted" / name)
    with refused("gone.png", "is a link to nothing, as are 1 more", "correct or remove it") as caught:
        find_images(root)
    assert "--bad_images" not in str(caught.value)  # who draws with images has no such setting
    with refused("gone.png", "is a link to nothing", "--bad_images skip"):
        open_folder(root, 8, 3, "stop")


def test_with_skip_a_link_to_nothing_is_an_unreadable_image(root: Path) -> None:
    """So the list of images is the same whether its target is there or not."""
    for name in ("c.png", "d.png"):
        put(root / name)
    (root / "link.png").symlink_to(put(root.parent / "target.png"))
    (root / "nothing").symlink_to("nowhere")
    names = [source.fingerprint() for source in vars_of(open_folder(root, 8, 3, "skip"))]
    (root.parent / "target.png").unlink()
    splits = open_folder(root, 8, 3, "skip")
    assert [source.fingerprint() for source in vars_of(splits)] == names
    assert splits.left_out["link to nothing"] == 1


def vars_of(splits):
    return splits.train, splits.valid, splits.test


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Paths that the system refuses to look into or to open; for root, too."""
    refused_paths: list[Path] = []
    scan, status = os.scandir, Path.stat

    def refuse(path: os.PathLike[str] | str) -> None:
        if any(Path(path) == each or each in Path(path).parents for each in refused_paths):
            raise PermissionError(13, "Permission denied", str(path))

    def scandir(path: Path):
        refuse(path)
        return scan(path)

    def stat(self: Path, **options: bool) -> os.stat_result:
        if self not in refused_paths:
            refuse(self)
        return status(self, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "stat", stat)
    yield refused_paths


def test_a_folder_that_may_not_be_read_is_named(root: Path, unreadable: list[Path]) -> None:
    unreadable.append(root / "own")
    with refused("own", "cannot be read (Permission denied)", "right to read"):
        find_images(root)
    unreadable[0] = root
    with refused("root", "cannot be read (Permission denied)", "right to read"):
        open_folder(root, 8, 3, "stop")


def test_a_link_into_a_folder_that_may_not_be_read_is_named(
    root: Path, elsewhere: Path, unreadable: list[Path]
) -> None:
    (root / "link").symlink_to(elsewhere)
    unreadable.append(root / "link")
    with refused("link", "cannot be read (Permission denied)", "right to read"):
        find_images(root)


def test_rights_of_real_folders_and_files(root: Path) -> None:
    fill(root, "own/c.png", "own/d.png")
    with without_permission(root / "own"), refused("own", "Permission denied", "right to read"):
        find_images(root)


def test_a_disk_error_while_a_folder_is_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(os, "scandir", fail)
    with refused("root", "cannot be read (Input/output error)", "check the path and its disk"):
        find_images(root)


def test_names_need_be_neither_utf_8_nor_short(root: Path) -> None:
    names = [NOT_UTF_8, "x" * 251 + ".png", "ü.png", "two\nlines.png", " .png", "日本.png"]
    fill(root, *names)
    assert sorted(find_images(root)) == sorted(["a.png", "own/b.png", *names])
    splits = open_folder(root, 8, 3, "stop")
    assert sum(map(len, vars_of(splits))) == 8
    assert splits.train.read(range(len(splits.train))).shape[0] == len(splits.train)


def test_names_are_in_the_order_of_their_bytes(root: Path) -> None:
    names = ["Z.png", "z.png", "é.png", "\uff41.png", "😀.png", NOT_UTF_8]
    fill(root, *names)
    found = find_images(root)
    assert found == sorted(found, key=os.fsencode)
    ordinary = [name for name in found if name != NOT_UTF_8]
    assert ordinary == sorted(ordinary)  # as before names of other kinds were read


@pytest.mark.parametrize(("name", "shown"), [(NOT_UTF_8, r"caf\xe9.png"), ("two\nlines.png", r"two\nlines.png")])
def test_a_message_shows_every_name_on_one_line(root: Path, name: str, shown: str) -> None:
    (root / name).write_text("no image")
    fill(root, "c.png")
    splits = open_folder(root, 8, 3, "stop")
    with pytest.raises(InputError) as caught:
        for source in vars_of(splits):
            source.read(range(len(source)))
    assert shown in str(caught.value)
    assert str(caught.value).isprintable()
    str(caught.value).encode()
