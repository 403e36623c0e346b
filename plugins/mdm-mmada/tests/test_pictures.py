"""Pictures of every mode that files hold, what is refused, and how they are fitted to a size."""

from __future__ import annotations

import mdm
import numpy as np
import pytest
from mdm_mmada import pictures
from mdm_mmada.pictures import fit_picture, read_picture
from PIL import Image

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([GREY, GREY.T, 255 - GREY], 2)


def saved(path, image, name="picture.png", **options):
    image.save(path / name, **options)
    return path / name


def three(grey):
    return np.repeat(grey[:, :, None], 3, 2)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp"])
def test_a_coloured_picture_is_read_as_it_is(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    found = read_picture(saved(tmp_path, Image.fromarray(COLOURS), name, **options))
    assert found.dtype == np.uint8 and found.flags.writeable
    assert np.array_equal(found, COLOURS)


def test_a_jpeg_is_read_and_its_ending_does_not_matter(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS), "a.jpeg", quality=95, subsampling=0)
    assert np.abs(read_picture(path).astype(int) - COLOURS).mean() < 8
    assert np.array_equal(read_picture(path.rename(tmp_path / "a.png")), np.array(Image.open(tmp_path / "a.png")))


def test_grey_and_black_and_white_become_three_equal_colours(tmp_path):
    assert np.array_equal(read_picture(saved(tmp_path, Image.fromarray(GREY))), three(GREY))
    found = read_picture(saved(tmp_path, Image.fromarray(GREY > 99)))
    assert np.array_equal(found, three(np.where(GREY > 99, 255, 0)))


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.fromarray(GREY % 3)
    image = image.convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    table = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]])
    assert np.array_equal(read_picture(saved(tmp_path, image)), table[GREY % 3])
    assert np.array_equal(read_picture(saved(tmp_path, image, "a.gif")), table[GREY % 3])
    clear = read_picture(saved(tmp_path, image, transparency=1))
    table[1] = 255
    assert np.array_equal(clear, table[GREY % 3])


def test_what_is_transparent_lies_over_white(tmp_path):
    alpha = np.zeros_like(GREY)
    alpha[:, 5:], alpha[:, 10:] = 128, 255
    found = read_picture(saved(tmp_path, Image.fromarray(np.dstack([COLOURS, alpha]))))
    assert (found[:, :5] == 255).all()
    halves = (COLOURS[:, 5:10].astype(int) * 128 + 255 * 127) / 255
    assert np.abs(found[:, 5:10] - halves).max() <= 1
    assert np.array_equal(found[:, 10:], COLOURS[:, 10:])
    found = read_picture(saved(tmp_path, Image.fromarray(np.dstack([GREY, alpha]))))
    assert (found[:, :5] == 255).all() and np.array_equal(found[:, 10:], three(GREY)[:, 10:])


def test_a_colour_that_stands_for_nothing_is_white(tmp_path):
    found = read_picture(saved(tmp_path, Image.fromarray(GREY), transparency=7))
    assert np.array_equal(found, three(np.where(GREY == 7, 255, GREY)))
    found = read_picture(saved(tmp_path, Image.fromarray(COLOURS), transparency=(0, 0, 255)))
    assert (found[0, 0] == 255).all() and np.array_equal(found[1:], COLOURS[1:])
    found = read_picture(saved(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 256), transparency=7 * 256))
    assert np.array_equal(found, three(np.where(GREY == 7, 255, GREY)))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, name):
    deep = GREY.astype(np.uint16) * 256 + GREY.T
    assert np.array_equal(read_picture(saved(tmp_path, Image.fromarray(deep), name)), three(GREY))


def test_sixteen_bits_of_a_portable_map_are_read(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + (GREY.astype(int) * 256 + 3).astype(">u2").tobytes())
    assert np.array_equal(read_picture(tmp_path / "a.pgm"), three(GREY))


def test_cmyk_is_converted(tmp_path):
    found = read_picture(saved(tmp_path, Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "a.tiff"))
    assert (found == [255, 0, 0]).all()


def test_a_picture_lies_as_its_orientation_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    found = read_picture(saved(tmp_path, Image.fromarray(COLOURS[:8]), exif=exif))
    assert np.array_equal(found, np.rot90(COLOURS[:8], -1))


def test_a_preview_behind_a_jpeg_is_no_animation(tmp_path):
    image = Image.fromarray(COLOURS)
    path = saved(tmp_path, image, "a.jpg", format="MPO", save_all=True, append_images=[image.resize((4, 4))])
    assert read_picture(path).shape == (16, 16, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_animations_are_refused(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(GREY), name, save_all=True, append_images=[Image.fromarray(GREY.T)])
    with pytest.raises(mdm.MdmError, match=f"{name} holds several pictures: save the one"):
        read_picture(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is no picture that can be read; there are PNG, JPEG"),
        (b"<svg/>", "is no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is no picture that can be read"),
        (b"P6 16 16 255\n" + b"x" * 9, "cannot be read as a picture"),
        (b"P5 9000 9000 255\n", "a.png has more than 67,108,864 pixels: make it smaller"),
        (b"P5 99999 99999 255\n", "a.png has more than 67,108,864 pixels: make it smaller"),
    ],
)
def test_files_that_are_no_picture_are_refused_in_a_line(tmp_path, content, line, recwarn):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(mdm.MdmError, match=line) as refused:
        read_picture(tmp_path / "a.png")
    assert "\n" not in str(refused.value) and not recwarn.list


@pytest.mark.parametrize("name", ["a.png", "a.jpeg", "a.gif", "a.tiff", "a.webp"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(mdm.MdmError, match=f"{name} (cannot be read|is no picture)"):
        read_picture(path)


def test_pixels_without_a_white_are_refused(tmp_path):
    with pytest.raises(mdm.MdmError, match="floating-point pixels"):
        read_picture(saved(tmp_path, Image.new("F", (4, 4), 0.5), "a.tiff"))
    with pytest.raises(mdm.MdmError, match="more than sixteen bits"):
        read_picture(saved(tmp_path, Image.new("I", (4, 4), 70_000), "a.tiff"))


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(mdm.MdmError, match="there is no such file"):
            read_picture(path)


def test_the_middle_is_cut_out_and_a_squashed_picture_is_whole():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (fit_picture(wide, 8) == 200).all()
    squashed = fit_picture(wide, 8, squash=True)
    assert squashed.shape == (8, 8, 3) and squashed[0, 0, 0] < 50 < squashed[0, 4, 0]
    assert (fit_picture(np.ascontiguousarray(wide.transpose(1, 0, 2)), 8) == 200).all()


@pytest.mark.parametrize(("shape", "size"), [((5, 5, 3), 8), ((16, 16, 3), 16), ((1, 1, 3), 4), ((7, 31, 3), 5)])
def test_any_picture_is_fitted(shape, size):
    for squash in (False, True):
        fitted = fit_picture(np.full(shape, 9, np.uint8), size, squash=squash)
        assert fitted.shape == (size, size, 3) and (fitted == 9).all()


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(mdm.MdmError, match="1 x 1000 pixels whose shorter side is made 512 has more than"):
        fit_picture(np.zeros((1, 1000, 3), np.uint8), 512)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(mdm.MdmError, match=r"a picture is uint8 of the shape \[H, W, 3\]"):
            fit_picture(wrong, 8)


def test_the_limit_is_of_pixels(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 256)
    assert read_picture(path).shape == (16, 16, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 255)
    with pytest.raises(mdm.MdmError, match="more than 255 pixels"):
        read_picture(path)
