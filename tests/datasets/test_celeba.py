"""CelebA from its archive and its list: the central square at 64×64, in the owners' splits."""

import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_images import saved
from PIL import Image
from refusals import refused

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.celeba import ARCHIVE, PARTITION, convert_celeba, read_partition
from vdvae_lr.errors import InputError

SPLITS = (0, 0, 2, 1, 0, 2)
NAMES = [f"{number:06d}.jpg" for number in range(1, 7)]
LIST = "".join(f"{name} {split}\n" for name, split in zip(NAMES, SPLITS, strict=True))


def face(number: int) -> bytes:
    """Grey 20·number in the central 148×148, white around it."""
    image = Image.new("RGB", (178, 218), "white")
    image.paste((20 * number,) * 3, (15, 35, 163, 183))
    return saved(image, "JPEG", quality=100)


FACES = {f"img_align_celeba/{name}": face(number) for number, name in enumerate(NAMES, 1)}


def write(folder: Path, files: dict[str, bytes], partition: str = LIST) -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    (folder / PARTITION).write_text(partition)
    return folder


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return write(tmp_path / "given", FACES)


def test_faces_go_to_their_splits_in_the_lists_order(given: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    written = convert_celeba(given, root)
    assert {path.name: count for path, count in written.items()} == {
        "celeba-64-train.npy": 3,
        "celeba-64-valid.npy": 1,
        "celeba-64-test.npy": 2,
    }
    assert len(list(root.iterdir())) == 3
    splits = open_splits(DataSettings("celeba", str(root)), 64, 3)
    for source, greys in ((splits.train, [20, 40, 100]), (splits.valid, [80]), (splits.test, [60, 120])):
        images = source.read(range(len(source))).astype(int)
        centres = images[:, 4:60, 4:60]  # JPEG rings a little at the border
        assert np.abs(centres - np.reshape(greys, (-1, 1, 1, 1))).max() <= 3
        assert np.abs(images[:, [0, 63]].mean(axis=(1, 2, 3)) - greys).max() < 8  # nothing of the white is left


def test_another_folder_in_the_archive_and_other_files_do_no_harm(tmp_path: Path) -> None:
    files = {f"celeba/img/{name}": content for name, content in FACES.items()}
    files |= {"__MACOSX/celeba/._000001.jpg": b"x", "../000001.jpg": b"x", "/000002.jpg": b"x", "readme.txt": b"x"}
    assert sum(convert_celeba(write(tmp_path / "given", files), tmp_path / "root").values()) == 6


def test_a_cut_conversion_leaves_nothing_that_looks_whole(given: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(given, FACES | {"img_align_celeba/000006.jpg": FACES["img_align_celeba/000006.jpg"][:300]})
    with refused("000006.jpg", "cannot be read", "fetch it again"):
        convert_celeba(given, root)
    assert {path.name for path in root.iterdir()} == {"celeba-64-train.npy", "celeba-64-valid.npy"}
    before = (root / "celeba-64-train.npy").stat().st_mtime_ns
    (root / ".celeba-64-test.npy.part").write_bytes(b"what a killed conversion leaves")
    with refused("celeba-64-test.npy", "does not exist", "python data/celeba/prepare.py --from PATH"):
        open_splits(DataSettings("celeba", str(root)), 64, 3)
    assert sum(convert_celeba(write(given, FACES), root).values()) == 6
    assert (root / "celeba-64-train.npy").stat().st_mtime_ns == before
    assert len(list(root.iterdir())) == 3


def test_files_of_another_list_are_refused(given: Path, tmp_path: Path) -> None:
    convert_celeba(given, tmp_path / "root")
    write(given, FACES, LIST.replace("000001.jpg 0\n", ""))
    with refused("celeba-64-train.npy", f"holds 3 images, but {PARTITION} names 2", "remove it, then run"):
        convert_celeba(given, tmp_path / "root")


def test_missing_images_are_counted(tmp_path: Path) -> None:
    files = {name: content for name, content in FACES.items() if not name.endswith(("2.jpg", "5.jpg"))}
    given = write(tmp_path / "given", files)
    with refused(
        ARCHIVE, f"lacks 2 of the 6 images that {PARTITION} names", "first of them 000002.jpg: fetch it again"
    ):
        convert_celeba(given, tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("000007.jpg", "line 7: '000007.jpg' is not an image's name and 0, 1 or 2"),
        ("000007.jpg 3", "line 7: '000007.jpg 3' is not"),
        ("../000007.jpg 0", "line 7: '../000007.jpg 0' is not"),
        ("/etc/000007.jpg 0", "line 7: '/etc/000007.jpg 0' is not"),
        ("000007.png 0", "line 7: '000007.png 0' is not"),
        ("000001.jpg 1", "line 7: 000001.jpg comes twice"),
        ("\0\x1b[2J" + "x" * 1000, "line 7: '\\x00\\x1b[2Jx"),
    ],
)
def test_an_odd_line_of_the_list_is_named(given: Path, tmp_path: Path, line: str, words: str) -> None:
    write(given, FACES, LIST + line + "\n")
    with refused(PARTITION, words, "fetch it again"):
        convert_celeba(given, tmp_path / "root")


def test_lists_with_other_ends_of_lines_are_read_and_empty_splits_refused(tmp_path: Path) -> None:
    path = tmp_path / PARTITION
    path.write_bytes(LIST.replace("\n", "\r\n").encode() + b"\r\n")
    assert [len(part) for part in read_partition(path)] == [3, 1, 2]
    for content in (b"", b"000001.jpg 0\n", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{PARTITION}.*(names no (train|valid) images|is not an image's name)"):
            read_partition(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(1_000_000), "would unpack to 1,000,000 bytes"),
        (saved(Image.new("RGB", (178, 218))), "is no JPEG image"),
        (saved(Image.new("RGB", (178, 200)), "JPEG"), "has 178×200 pixels instead of 178×218"),
    ],
    ids=["bomb", "PNG", "size"],
)
def test_what_is_no_face_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    given = write(tmp_path / "given", FACES | {"img_align_celeba/000003.jpg": content})
    with refused("000003.jpg", words, "fetch it again"):
        convert_celeba(given, tmp_path / "root")


def test_a_grey_jpeg_becomes_a_colour_image(tmp_path: Path) -> None:
    grey = saved(Image.new("L", (178, 218), 90), "JPEG")
    convert_celeba(write(tmp_path / "given", FACES | {"img_align_celeba/000004.jpg": grey}), tmp_path)
    assert (np.load(tmp_path / "celeba-64-valid.npy") == 90).all()


def test_a_cut_archive_and_a_missing_file_are_named(given: Path, tmp_path: Path) -> None:
    path = given / ARCHIVE
    path.write_bytes(path.read_bytes()[:2000])
    with refused(str(path), "is cut short or not a zip archive", "fetch it again"):
        convert_celeba(given, tmp_path / "root")
    path.unlink()
    with refused(str(path), "does not exist", "--from"):
        convert_celeba(given, tmp_path / "root")


def test_the_script_notes_another_digest(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "data" / "celeba" / "prepare.py"
    arguments = ["prepare.py", "--from", str(given), "--data_root", str(tmp_path / "root")]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr()
    assert "celeba-64-train.npy, 3 images" in said.out
    assert f"note: {ARCHIVE} has the MD5" in said.err
    assert "d32c9cbf5e040fd4025c592c306e6668" in said.err
    (given / PARTITION).write_text("odd\n")
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(script), run_name="__main__")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {given / PARTITION}, line 1: 'odd' is not")
