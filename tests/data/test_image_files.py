"""Image files: every ordinary kind becomes 8-bit RGB or grey of one size; everything else is named in one sentence."""

import errno
import os
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from s3ta.data import has_transparency, load_image, transparency_note
from s3ta.data.folder_listing import SUFFIXES
from s3ta.data.image_files import fit
from s3ta.errors import UserError

COLOURS = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLOURS)


def _save(path, picture, **options):
    picture.save(path, **options)
    return path


LOSSY = {".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".avif", ".gif", ".j2c", ".jpc"}  # the last two have no colour space
GREY = {".pgm", ".pbm"}


def test_every_suffix_is_one_that_pillow_registers():
    unknown = SUFFIXES - set(Image.registered_extensions())
    assert unknown <= (set() if features.check("avif") else {".avif"})  # older ones read it with a plugin


@pytest.mark.parametrize("suffix", sorted(LOSSY))
def test_files_of_lossy_kinds_are_read(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    Image.new("RGB", (20, 20), (200, 90, 30)).save(path)
    assert np.abs(load_image(path, 8, 3).astype(int).mean(axis=(1, 2)) - [200, 90, 30]).max() < 4


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - LOSSY - GREY))
def test_lossless_files_give_their_own_pixels(tmp_path, suffix):
    path = _save(
        tmp_path / f"x{suffix}", PICTURE.crop((3, 0, 20, 17)), **({"lossless": True} if suffix == ".webp" else {})
    )
    pixels = load_image(path, 17, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, COLOURS[:, 3:20].transpose(2, 0, 1))  # rows are rows, red is first


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_palette_alpha_and_cmyk_pictures_become_rgb(tmp_path, mode, channels):
    smooth = Image.fromarray(np.add.outer(np.arange(0, 170, 10), np.arange(0, 69, 3)).astype(np.uint8)).convert("RGB")
    path = _save(tmp_path / ("x.tiff" if mode == "CMYK" else "x.png"), smooth.convert(mode))
    pixels = load_image(path, 17, channels)
    assert pixels.shape == (channels, 17, 17)
    expected = np.asarray(smooth.crop((3, 0, 20, 17))).transpose(2, 0, 1)[:channels].astype(int)
    assert abs(pixels.astype(int).mean() - expected.mean()) < 4
    if mode not in ("1", "P", "CMYK"):
        assert np.array_equal(pixels, expected)
    assert channels == 1 or mode in ("P", "CMYK") or (pixels[0] == pixels[1]).all()


def test_a_palette_with_transparency(tmp_path):
    with_bytes = _save(tmp_path / "x.png", PICTURE.convert("P"), transparency=3)
    assert load_image(with_bytes, 9, 3).shape == (3, 9, 9)


@pytest.mark.parametrize(
    ("array", "name", "words"),
    [
        (COLOURS[..., 0].astype(np.uint16) * 200, "x.png", "16- or 32-bit"),
        (COLOURS[..., 0].astype(np.int32), "x.tiff", "16- or 32-bit"),
        (COLOURS[..., 0].astype(np.float32) / 255, "x.tiff", "floating-point"),
    ],
)
def test_more_than_eight_bits_are_refused(tmp_path, array, name, words):
    path = _save(tmp_path / name, Image.fromarray(array))
    with pytest.raises(UserError) as caught:
        load_image(path, 9, 3)
    assert str(caught.value) == f"{path} holds {words} pixels: save it with 8 bits per channel first."


def _png_of_16_bits(colour_type, array):
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _tiff_of_16_bits(order, array):
    height, width, bands = array.shape
    data = array.astype(f"{order}u2").tobytes()
    depth = struct.pack(f"{order}{bands}H", *(16,) * bands)
    fields = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, 2)]
    fields += [(273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries = [
        struct.pack(f"{order}HHI", *field[:3])
        + (struct.pack(f"{order}HH", field[3], 0) if field[1:3] == (3, 1) else struct.pack(f"{order}I", field[3]))
        for field in fields
    ]
    start = 8 + len(data) + len(depth)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    return head + data + depth + struct.pack(f"{order}H", len(fields)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("kind", ["png of 2", "png of 6", "png of 4", "tiff of <", "tiff of >"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_sixteen_bits_are_refused_as_grey_ones_are(tmp_path, kind, channels):
    name, _, which = kind.partition(" of ")
    array = np.random.default_rng(0).integers(0, 4096, (9, 9, {"6": 4, "4": 2}.get(which, 3)))
    content = _png_of_16_bits(int(which), array) if name == "png" else _tiff_of_16_bits(which, array)
    path = tmp_path / f"x.{name}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_image(path, 9, channels)
    assert str(caught.value) == f"{path} holds 16- or 32-bit pixels: save it with 8 bits per channel first."


def test_sixteen_bits_for_all_three_colours_together_are_eight_bit_colours(tmp_path):
    head = b"BM" + struct.pack("<IHHI", 70 + 32, 0, 0, 70)
    info = struct.pack("<IiiHHIIiiII4I", 56, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F, 0)
    (tmp_path / "x.bmp").write_bytes(head + info + b"\xff\xff" * 16)
    assert (load_image(tmp_path / "x.bmp", 4, 3) > 240).all()


def _bad(folder, kind):
    path = folder / "bad.jpg"
    if kind == "text":
        path.write_text("not an image\n" * 9)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        whole = _save(folder / "whole.jpg", PICTURE.resize((400, 400))).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        import pickle

        path.write_bytes(pickle.dumps({"a": 1}))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "cannot be read as an image"),
        ("empty", "is empty"),
        ("truncated", "cannot be read as an image"),
        ("folder", "is a folder, not an image"),
        ("missing", "does not exist"),
        ("pickle", "cannot be read as an image"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path, kind, words):
    path = _bad(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        load_image(path, 9, 3)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".bmp", ".tiff", ".ppm"])
def test_random_damage_gives_an_image_or_a_sentence(tmp_path, suffix, capfd):
    whole = _save(tmp_path / f"whole{suffix}", PICTURE).read_bytes()
    damaged, dice, outcomes = tmp_path / f"damaged{suffix}", random.Random(suffix), set()
    for _ in range(60):
        content = bytearray(whole)
        if dice.random() < 0.4:
            content = content[: dice.randrange(len(content))]
        else:
            for _ in range(dice.choice([1, 3, 10])):
                content[dice.randrange(min(len(content), dice.choice([64, 9999])))] = dice.randrange(256)
        damaged.write_bytes(content)
        try:
            outcome = load_image(damaged, 5, 3).shape
        except UserError as error:
            outcome = str(error).startswith(str(damaged))
        outcomes.add(outcome)
    assert True in outcomes
    assert outcomes <= {True, (3, 5, 5)}


# --- fit ---------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_fit_gives_a_square_whatever_comes(width, height, size):
    picture = Image.new("RGB", (width, height), (10, 200, 30))
    fitted = np.asarray(fit(picture, size))
    assert fitted.shape == (size, size, 3)
    assert (fitted == (10, 200, 30)).all()


def test_fit_keeps_the_middle_and_the_proportions():
    stripes = np.zeros((20, 60, 3), np.uint8)
    stripes[:, 20:40] = 255
    assert (np.asarray(fit(Image.fromarray(stripes), 20)) == 255).all()
    half = np.asarray(fit(Image.fromarray(stripes), 10))
    assert (half[:, 2:-2] == 255).all()
    assert np.asarray(fit(Image.fromarray(COLOURS), 17)).tolist() == COLOURS[:, 3:20].tolist()
    assert (
        np.asarray(fit(Image.fromarray(COLOURS.transpose(1, 0, 2)), 17)).tolist()
        == COLOURS.transpose(1, 0, 2)[3:20].tolist()
    )


def test_shrinking_a_picture_averages_its_pixels():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    assert (
        np.ptp(np.asarray(fit(Image.fromarray(board.astype(np.uint8)), 8)).astype(int)) < 40
    )  # without anti-aliasing: 255


# --- transparency, size, permission -------------------------------------------------------------------------------------------


def _ink(path, alpha):
    pixels = np.zeros((12, 12, 4), np.uint8)
    pixels[..., 3] = alpha
    Image.fromarray(pixels).save(path)
    return path


def test_transparent_pixels_are_noticed_and_dropped(tmp_path):
    """23.c: black ink on transparent black."""
    alpha = np.zeros((12, 12), np.uint8)
    alpha[3:9, 5] = 255
    path = _ink(tmp_path / "ink.png", alpha)
    assert has_transparency(path)
    assert load_image(path, 12, 3).max() == 0  # as torchvision has it
    grey = Image.fromarray(COLOURS[..., 0])
    opaque = [
        _ink(tmp_path / "opaque.png", np.full((12, 12), 255, np.uint8)),
        _save(tmp_path / "plain.png", PICTURE),
        _save(tmp_path / "photo.jpg", PICTURE),
        _save(tmp_path / "unused.png", Image.new("RGB", (9, 9), (1, 2, 3)), transparency=(7, 7, 7)),
    ]
    assert not any(has_transparency(other) for other in opaque)
    others = [
        _save(tmp_path / "grey.png", grey.convert("LA").point(lambda value: value // 2)),
        _save(tmp_path / "palette.gif", PICTURE.convert("P"), transparency=int(np.asarray(PICTURE.convert("P"))[0, 0])),
        _save(tmp_path / "colour.png", Image.new("RGB", (9, 9), (7, 7, 7)), transparency=(7, 7, 7)),
        _save(tmp_path / "half.webp", Image.new("RGBA", (9, 9), (9, 9, 9, 128)), lossless=True),
    ]
    assert all(has_transparency(other) for other in others)
    (tmp_path / "text.png").write_text("no image")
    assert not has_transparency(tmp_path / "text.png")
    assert not has_transparency(tmp_path / "missing.png")


def test_the_note_on_transparency_names_the_pictures():
    assert transparency_note([], 9) == ""
    note = transparency_note(["a.png", "b.png"], 9)
    assert note.startswith("2 of 9 pictures have transparent pixels ('a.png', 'b.png'): transparency is dropped")
    assert "put the pictures on one first" in note


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_pillow_holds_for_a_bomb_is_too_large(tmp_path):
    """05.b: it is sound."""
    path = tmp_path / "large.png"
    Image.new("1", (14_000, 13_600)).save(path)
    with pytest.raises(UserError) as caught:
        load_image(path, 9, 3)
    assert str(caught.value) == f"{path} is too large: it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels."


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "cannot be read: permission is denied."),
        (errno.EIO, "cannot be read (Input/output error)."),
        (errno.ESTALE, "cannot be read (Stale file handle)."),
        (errno.ENAMETOOLONG, "cannot be read (File name too long)."),
    ],
)
def test_errors_of_the_disk_are_told_in_its_words(tmp_path, monkeypatch, number, words):
    """18.n and more of the kind."""

    def fails(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(UserError) as caught:
        load_image(tmp_path / "x.png", 9, 3)
    assert str(caught.value) == f"{tmp_path / 'x.png'} {words}"


# --- whatever a plug-in raises ------------------------------------------------------------------------------------


def damaged_avif(path):
    """A picture whose header is sound and whose content is not."""
    whole = bytearray(_save(path, PICTURE.resize((64, 64))).read_bytes())
    start = whole.index(b"mdat") + 8
    whole[start:] = b"\xff" * (len(whole) - start)
    path.write_bytes(whole)
    return path


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_file_is_one_sentence(tmp_path):
    path = damaged_avif(tmp_path / "x.avif")
    with pytest.raises(UserError) as caught:
        load_image(path, 9, 3)
    assert str(caught.value).startswith(f"{path} cannot be read as an image (")
    assert not has_transparency(path)


@pytest.mark.parametrize("error", [RuntimeError("Failed to decode image"), KeyError("x"), EOFError(), IndexError()])
def test_whatever_pillow_raises_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    path = _save(tmp_path / "x.png", PICTURE)
    monkeypatch.setattr("PIL.Image.Image.convert", fail)
    with pytest.raises(UserError, match=rf"x\.png cannot be read as an image \({type(error).__name__}\)"):
        load_image(path, 9, 3)


def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    path = _save(tmp_path / "x.png", PICTURE.convert("RGBA"))
    monkeypatch.setattr("PIL.Image.Image.convert", fail)
    with pytest.raises(MemoryError):
        load_image(path, 9, 3)
    with pytest.raises(MemoryError):
        has_transparency(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: it has no bytes."),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is a Git LFS pointer, not the image: run git lfs pull.",
        ),
        (b"version", "cannot be read as an image"),
    ],
)
def test_files_that_only_stand_for_an_image_are_told(tmp_path, content, words):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_image(tmp_path / "x.png", 8, 3)
    assert f"x.png {words}" in str(caught.value)
