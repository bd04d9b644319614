"""Image files of every kind that turns up become uint8 [h, w, 1, 3 or 4]; damaged ones say what is wrong."""

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from jaxnets.data import decode as decoding
from jaxnets.data.decode import decode, decode_reduced, read_header
from jaxnets.data.sources import CorruptImage

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
SMOOTH = np.add.outer(np.arange(16) * 8, np.arange(24) * 5).astype(np.uint8)  # survives JPEG nearly unharmed


def _bytes(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
    return decode(io.BytesIO(data), "x")


def _refused(data: bytes, name: str = "x") -> str:
    with pytest.raises(CorruptImage) as refused:
        decode(io.BytesIO(data), name)
    return str(refused.value)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        *(("TIFF", {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_deflate", "packbits")),
    ],
)
def test_rgb_without_loss_is_exact(format, options):
    np.testing.assert_array_equal(_decode(_bytes(Image.fromarray(RGB), format, **options)), RGB)


def test_a_grey_image_has_one_channel():
    np.testing.assert_array_equal(_decode(_bytes(Image.fromarray(RGB[..., 0]))), RGB[..., :1])


def test_a_black_and_white_image_is_0_and_255():
    bits = RGB[..., 0] > 128
    np.testing.assert_array_equal(_decode(_bytes(Image.fromarray(bits)))[..., 0], bits * 255)


def test_alpha_is_kept():
    rgba = np.dstack([RGB, RGB[..., 0]])
    np.testing.assert_array_equal(_decode(_bytes(Image.fromarray(rgba))), rgba)


def test_grey_with_alpha_becomes_rgba():
    image = _decode(_bytes(Image.fromarray(RGB[..., :2])))
    np.testing.assert_array_equal(image, RGB[..., [0, 0, 0, 1]])


def test_a_palette_becomes_rgb():
    image = Image.fromarray(RGB[..., 0] % 4, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)
    np.testing.assert_array_equal(_decode(_bytes(image)), colours[RGB[..., 0] % 4])


def test_a_palette_with_a_transparent_colour_becomes_rgba():
    image = Image.fromarray(RGB[..., 0] % 4, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    alpha = _decode(_bytes(image, transparency=2))[..., 3]
    np.testing.assert_array_equal(alpha, np.where(RGB[..., 0] % 4 == 2, 0, 255))


def test_a_transparent_colour_of_an_rgb_image_becomes_alpha():
    alpha = _decode(_bytes(Image.fromarray(RGB), transparency=tuple(int(value) for value in RGB[2, 3])))[..., 3]
    np.testing.assert_array_equal(alpha == 0, (RGB[2, 3] == RGB).all(-1))


def test_16_bits_are_rounded_to_8():
    wide = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    np.testing.assert_array_equal(_decode(_bytes(Image.fromarray(wide)))[0, :, 0], np.round(wide[0] / 257))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("white_level", [1, 255, 4095, 10_000, 65_534])
def test_a_white_level_becomes_255_and_what_is_above_it_too(white_level, format):
    wide = np.linspace(0, 65535, 64).astype(np.uint16)[None]
    wide[0, :2] = white_level, white_level // 2
    image = decode(io.BytesIO(_bytes(Image.fromarray(wide), format)), "a", white_level)
    expected = np.round(np.minimum(wide.astype(float), white_level) * 255 / white_level)
    np.testing.assert_allclose(image[0, :, 0], expected[0], atol=1)
    assert image[0, 0, 0] == 255


@pytest.mark.parametrize("white_level", [4095, 65535])
def test_a_tiff_whose_zero_is_white_is_turned_round(white_level):
    wide = np.linspace(0, white_level, 16).astype(np.uint16)[None]
    inverted = Image.fromarray(white_level - wide)
    data = _bytes(inverted, "TIFF", tiffinfo={262: 0})
    plain = decode(io.BytesIO(_bytes(Image.fromarray(wide), "TIFF")), "a", white_level)
    np.testing.assert_array_equal(decode(io.BytesIO(data), "a", white_level), plain)


def test_a_tiff_of_floating_point_numbers_is_refused_as_its_range_is_not_known():
    assert "what is black and white among them it does not say" in _refused(
        _bytes(Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "TIFF")
    )


def _tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_numbers_below_0_are_refused_and_not_cut_or_taken_for_bright_ones(kind):
    said = r"go down to -100, and what is black among numbers below 0 it does not say: convert it"
    assert re.search(said, _refused(_tiff(np.array([[-100, 5, 90]], kind))))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_numbers_that_might_be_below_0_and_are_not_are_read(kind):
    image = decode(io.BytesIO(_tiff(np.array([[0, 5, 127]], kind))), "x", 255)
    assert image.ravel().tolist() == [0, 5, 127]


def test_the_largest_of_32_bits_are_white():
    image = _decode(_tiff(np.array([[0, 32896, 70_000, 2**31, 2**32 - 1]], np.uint32)))
    assert image.ravel().tolist() == [0, 128, 255, 255, 255]


def test_a_palette_that_is_missing_is_said():
    image = Image.fromarray(RGB[..., 0] % 4, "P")
    image.putpalette(bytes(range(12)))
    data = _bytes(image)
    start = data.index(b"PLTE") - 4
    assert "it has no palette" in _refused(data[:start] + data[start + 12 + 12 :])


def test_a_header_says_what_is_decoded_of_16_bits_with_a_transparent_value():
    data = _bytes(Image.fromarray(np.array([[0, 257, 65535]], np.uint16)), transparency=257)
    assert "transparency" in Image.open(io.BytesIO(data)).info
    header = read_header(io.BytesIO(data))
    assert header is not None
    assert header[:3] == _decode(data).shape


def test_a_tiff_with_tiles_larger_than_an_image_may_be_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    data = io.BytesIO()
    tifffile.imwrite(data, RGB, tile=(16, 16), photometric="rgb")
    assert "tiles of 16 × 16 pixels, more than the 200" in _refused(data.getvalue())


def test_eight_bits_know_no_white_level():
    assert decode(io.BytesIO(_bytes(Image.fromarray(RGB[..., 0]))), "a", 10).tobytes() == RGB[..., 0].tobytes()


def test_a_header_tells_how_many_bits_there_are(tmp_path):
    for bits, pixels in ((8, RGB), (8, RGB[..., 0]), (16, RGB[..., 0].astype(np.uint16))):
        for name in ("a.png", "a.tif"):
            Image.fromarray(pixels).save(tmp_path / name)
            header = read_header(tmp_path / name)
            assert header is not None
            assert header.bits == bits
    cv2.imwrite(str(tmp_path / "b.tif"), RGB.astype(np.uint16) * 257)
    assert read_header(tmp_path / "b.tif") == (6, 9, 3, 16)
    np.testing.assert_array_equal(decode(tmp_path / "b.tif", "b"), RGB[..., ::-1])


def test_a_cmyk_jpeg_becomes_rgb():
    grey = Image.fromarray(SMOOTH)
    image = _decode(_bytes(grey.convert("RGB").convert("CMYK"), "JPEG", quality=100))
    assert image.shape == (16, 24, 3)
    np.testing.assert_allclose(image, np.dstack([SMOOTH] * 3), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_exif_orientation_turns_the_image_upright(orientation, format, options):
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB),  # a turn by 90° clockwise sets it upright
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    np.testing.assert_array_equal(_decode(_bytes(image, format, exif=exif, **options)), RGB)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_spoil_the_image():
    data = _bytes(Image.fromarray(SMOOTH), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert _decode(data).shape == (16, 24, 1)


@pytest.mark.parametrize(("format", "options"), [("WEBP", {"lossless": True}), ("GIF", {}), ("TIFF", {}), ("PNG", {})])
def test_the_first_frame_stands_for_an_animation(format, options):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    data = _bytes(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(_decode(data)[..., :3], RGB)


def test_a_image_can_be_written_to():
    assert _decode(_bytes(Image.fromarray(RGB))).flags.writeable


def test_a_file_s_content_counts_and_not_its_suffix(tmp_path):
    (tmp_path / "a.jpg").write_bytes(_bytes(Image.fromarray(RGB)))
    np.testing.assert_array_equal(decode(tmp_path / "a.jpg", "a.jpg"), RGB)


def test_text_is_refused_with_what_can_be_read():
    said = "notes.txt is not an image that can be read (JPEG, PNG, WebP, BMP, TIFF, GIF or DICOM)"
    assert _refused(b"hello", "notes.txt") == said


def test_an_empty_file_is_refused():
    assert "empty.jpg is not an image" in _refused(b"", "empty.jpg")


def test_other_formats_are_refused():
    assert "x is not an image that can be read" in _refused(_bytes(Image.fromarray(RGB), "PPM"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CorruptImage, match=r"gone\.png does not exist"):
        decode(tmp_path / "gone.png", "gone.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_a_file_that_was_cut_off_is_refused_by_name(format):
    data = _bytes(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), format)
    assert _refused(data[: len(data) // 2], "cut.x").startswith("cut.x ")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_pillow_allows_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert "9 × 6 pixels, more than the 50" in _refused(_bytes(Image.fromarray(RGB)))


def test_a_decompression_bomb_is_refused():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    assert re.fullmatch(
        r"x is too large \(.*900000000 pixels.*\): shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it",
        _refused(data),
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_damaged_bytes_give_a_image_or_a_corrupt_image_and_nothing_else(format):
    data = _bytes(Image.fromarray(RGB), format)
    for _ in range(200):
        damaged = bytearray(data)
        for position in RNG.integers(0, len(data), 4):
            damaged[position] = RNG.integers(0, 256)
        try:
            image = _decode(bytes(damaged))
        except CorruptImage:
            continue
        assert image.dtype == np.uint8
        assert image.shape[2] in (1, 3, 4)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_header_foretells_the_decoded_shape(tmp_path, mode, suffix):
    image = Image.new(mode, (9, 6))
    path = tmp_path / ("a.jpg" if (mode, suffix) == ("CMYK", ".png") else f"a{suffix}")
    image.save(path)
    assert read_header(path)[:3] == decode(path, "a").shape


def test_a_header_foretells_the_shape_of_a_image_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(SMOOTH).save(tmp_path / name, exif=exif)
        image = decode(tmp_path / name, "a")
        assert read_header(tmp_path / name)[:3] == image.shape == (24, 16, 1)
        np.testing.assert_allclose(image[..., 0], np.rot90(SMOOTH, -1), atol=8)


def test_an_unreadable_header_is_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    assert read_header(tmp_path / "a.png") is None


def _by_pillow_alone(data: bytes, monkeypatch) -> np.ndarray | str:
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_plain_jpeg", lambda data, least: None)
        try:
            return _decode(data)
        except CorruptImage as error:
            return str(error)


PHOTO = Image.effect_noise((61, 47), 60).convert("RGB")
KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "rgb": {"keep_rgb": True},
    "comment": {"comment": b"hello"},
    "coarse": {"quality": 1},
    "xmp": {"xmp": b'<x tiff:Orientation="6"/>'},
    "damaged exif": {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"},
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_quick_decoder_gives_pillow_s_pixels(options, mode, monkeypatch):
    if mode != "RGB" and "keep_rgb" in options:
        pytest.skip("of colours alone")
    data = _bytes(PHOTO.convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(_decode(data), _by_pillow_alone(data, monkeypatch))


@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_jpeg_is_turned_as_pillow_turns_it(orientation, monkeypatch):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = _bytes(PHOTO, "JPEG", exif=exif)
    image = _decode(data)
    np.testing.assert_array_equal(image, _by_pillow_alone(data, monkeypatch))
    assert image.flags.c_contiguous


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "xmp"])
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(kind, monkeypatch):
    rng, data = np.random.default_rng(1), _bytes(PHOTO, "JPEG", **KINDS[kind])
    for trial in range(150):
        damaged = bytearray(data[: rng.integers(len(data))] if trial % 3 == 0 else data)
        for position in rng.integers(0, max(len(damaged), 1) if trial % 2 else 300, trial % 3):
            damaged[position % len(damaged)] = rng.integers(256)
        expected = _by_pillow_alone(bytes(damaged), monkeypatch)
        if isinstance(expected, str):
            assert _refused(bytes(damaged)) == expected
        else:
            np.testing.assert_array_equal(_decode(bytes(damaged)), expected)


@pytest.mark.parametrize(
    ("least", "shape"),
    [
        (None, (480, 322)),
        ((241, 100), (480, 322)),  # just below twice its height
        ((240, 161), (240, 161)),
        ((121, 40), (240, 161)),
        ((100, 80), (120, 81)),  # a width that is not divided evenly is rounded up
        ((1, 1), (60, 41)),
    ],
    ids=str,
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_comes_at_the_smallest_part_of_its_size_that_is_asked_for(least, shape, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.add.outer(np.arange(480), np.arange(322)).astype(np.uint8) // 4)
    if orientation == 6:
        stored = stored.transpose(Image.Transpose.ROTATE_90)
    read = decode_reduced(io.BytesIO(_bytes(stored, "JPEG", exif=exif)), "x", least=least)
    assert read.image.shape == (*shape, 1)
    assert read.original == (480, 322)
    assert read.by == 480 // shape[0]
    assert read.aspect == 322 / 480


def test_other_files_come_whole():
    read = decode_reduced(io.BytesIO(_bytes(Image.fromarray(RGB))), "x", least=(1, 1))
    np.testing.assert_array_equal(read.image, RGB)
    assert (read.original, read.by) == ((6, 9), 1)
