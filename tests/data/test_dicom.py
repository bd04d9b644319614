"""DICOM files come out as a viewer shows them; most of these tests make their own, some open those pydicom ships."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_windowing, pixel_array
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from jaxnets.config import DataConfig
from jaxnets.data import dicom
from jaxnets.data.decode import decode, read_header
from jaxnets.data.sources import CorruptImage, open_source
from jaxnets.data.sources.folder import image_files
from tests.data.sources.images import fill

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (6, 9), np.uint16)
TWELVE[0, :2] = 0, 4095


def write(pixels: np.ndarray, path: Path | io.BytesIO | None = None, **elements) -> Path | io.BytesIO:
    """Writes pixels `[h, w]`, `[h, w, 3]` or `[frames, h, w]` in their own dtype, and elements by pydicom's names."""
    frames, colours = pixels.ndim == 3 and pixels.shape[2] != 3, pixels.ndim == 3 and pixels.shape[2] == 3
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.Modality = "CT"
    made.Rows, made.Columns = pixels.shape[1:] if frames else pixels.shape[:2]
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.SamplesPerPixel = 3 if colours else 1
    made.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        made.PlanarConfiguration = 0
    if frames:
        made.NumberOfFrames = len(pixels)
    for name, value in elements.items():
        setattr(made, name, value)
    made.HighBit = made.BitsStored - 1
    content = pixels.tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    target = io.BytesIO() if path is None else path
    with warnings.catch_warnings(action="ignore"):
        dcmwrite(target, made, enforce_file_format=True)
    if isinstance(target, io.BytesIO):
        target.seek(0)
    return target


def shown(pixels: np.ndarray, white_level: int = 65535, **elements) -> np.ndarray:
    image = decode(write(pixels, **elements), "x.dcm", white_level)
    assert image.dtype == np.uint8
    return image[..., 0] if image.shape[2] == 1 else image


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.floor(((values.astype(float) - low) / (high - low)).clip(0, 1) * 255 + 0.5)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_a_window_is_the_standards(function):
    elements = {"WindowCenter": 1500.0, "WindowWidth": 1000.0, **({"VOILUTFunction": function} if function else {})}
    dataset = dcmread(write(TWELVE, BitsStored=12, **elements))
    expected = apply_windowing(TWELVE, dataset) / 4095 * 255
    np.testing.assert_allclose(shown(TWELVE, BitsStored=12, **elements), expected, atol=0.51)


def test_the_first_of_several_windows_counts():
    several = shown(TWELVE, BitsStored=12, WindowCenter=[1500.0, 40.0], WindowWidth=[1000.0, 80.0])
    np.testing.assert_array_equal(several, shown(TWELVE, BitsStored=12, WindowCenter=1500.0, WindowWidth=1000.0))


def test_values_are_rescaled_before_they_are_windowed():
    signed = RNG.integers(-1000, 3000, (6, 9), np.int16)
    image = shown(signed, RescaleSlope=2.0, RescaleIntercept=-24.0, WindowCenter=40.5, WindowWidth=401.0)
    np.testing.assert_array_equal(image, scaled(signed * 2.0 - 24, -160, 240))


def test_a_table_of_the_modality_and_one_of_the_voi_are_applied_in_turn():
    def table(values: list[int], bits: int) -> list[Dataset]:
        item = Dataset()
        item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [len(values), 0, bits], values, "US"
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
        return [item]

    small = np.array([[0, 1, 2, 3]], np.uint16)
    image = shown(small, ModalityLUTSequence=table([3, 2, 1, 0], 16), VOILUTSequence=table([0, 1000, 2000, 4095], 12))
    np.testing.assert_array_equal(image[0], np.floor(np.array([4095, 2000, 1000, 0]) / 4095 * 255 + 0.5))


def test_without_a_window_the_range_is_the_images_own():
    narrow = RNG.integers(300, 800, (6, 9), np.uint16)
    np.testing.assert_array_equal(shown(narrow), scaled(narrow, narrow.min(), narrow.max()))
    np.testing.assert_array_equal(shown(np.full((4, 4), 7, np.uint16)), 0)


def test_without_a_window_a_white_level_is_the_range():
    np.testing.assert_array_equal(shown(TWELVE // 2, 4095, BitsStored=12), scaled(TWELVE // 2, 0, 4095))


def test_padding_has_no_part_in_the_range():
    padded = RNG.integers(300, 800, (6, 9), np.int16)
    padded[:2] = -2000
    image = shown(padded, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(image[2:], scaled(padded[2:], padded[2:].min(), padded[2:].max()))
    assert not image[:2].any()


def test_an_image_of_padding_alone_is_dark():
    assert not shown(np.full((4, 4), 7, np.uint16), PixelPaddingValue=7).any()


def test_what_is_no_number_has_no_part_in_the_range_and_is_dark():
    values = np.linspace(-1, 1, 54, dtype=np.float32).reshape(6, 9)
    values[0, :2] = np.nan, np.inf
    made = dcmread(write(TWELVE))
    del made.PixelData, made.BitsStored, made.HighBit, made.PixelRepresentation
    made.FloatPixelData, made.BitsAllocated = values.tobytes(), 32
    file = io.BytesIO()
    made.save_as(file)
    file.seek(0)
    image = decode(file, "x.dcm")[..., 0]
    assert (image[0, 0], image[0, 1]) == (0, 255)
    np.testing.assert_array_equal(image.ravel()[2:], scaled(values.ravel()[2:], values[0, 2], 1))


def test_monochrome1_is_inverted():
    image = shown(TWELVE, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(image, 255 - shown(TWELVE, BitsStored=12).astype(int), atol=1)
    assert (image[0, 0], image[0, 1]) == (255, 0)


def test_the_first_frame_of_several_is_shown():
    frames = RNG.integers(0, 256, (3, 6, 9), np.uint8)
    frames[0, 0, :2] = 0, 255
    np.testing.assert_array_equal(shown(frames), frames[0])


def test_what_holds_for_the_first_of_many_frames_may_stand_in_its_own_group():
    frames = RNG.integers(0, 4096, (2, 6, 9), np.uint16)
    voi, rescale, shared, first = Dataset(), Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 1024.5, 2049.0
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1.0, -1000.0, "HU"
    first.FrameVOILUTSequence, shared.PixelValueTransformationSequence = [voi], [rescale]
    image = shown(
        frames,
        BitsStored=12,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[first, Dataset()],
    )
    np.testing.assert_array_equal(image, scaled(frames[0].astype(float) - 1000, 0, 2048))


def test_colours_stay_as_they_are():
    colours = RNG.integers(0, 256, (6, 9, 3), np.uint8)
    np.testing.assert_array_equal(shown(colours), colours)
    np.testing.assert_array_equal(shown(colours.astype(np.uint16) * 257), colours)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("CT_small.dcm", 1),
        ("MR_small_RLE.dcm", 1),
        ("MR_small_bigendian.dcm", 1),
        ("JPEG2000.dcm", 1),
        ("SC_rgb_jpeg_dcmtk.dcm", 3),
        ("SC_rgb_rle_2frame.dcm", 3),
        ("SC_ybr_full_422_uncompressed.dcm", 3),
        ("liver_1frame.dcm", 1),
        ("rtdose.dcm", 1),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_files_that_pydicom_ships_open_and_their_headers_foretell_them(name, channels):
    path = Path(get_testdata_file(name, download=False))
    image = decode(path, name)
    assert read_header(path) == (*image.shape, 8)
    assert image.shape[2] == channels
    assert np.ptp(image) > 100
    np.testing.assert_array_equal(decode(io.BytesIO(path.read_bytes()), name), image)


def test_colours_of_a_jpeg_in_ybr_are_pydicoms_rgb():
    path = Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm", download=False))
    np.testing.assert_array_equal(decode(path, "x"), pixel_array(path))


def test_a_file_that_begins_as_a_tiff_does_is_a_dicom_file_all_the_same(tmp_path):
    tiff = io.BytesIO()
    Image.fromarray(TWELVE[:2, :4].astype(np.uint8)).save(tiff, "TIFF")
    content = write(TWELVE, BitsStored=12).getvalue()
    both = tiff.getvalue()[:8].ljust(128, b"\0") + content[128:]
    (tmp_path / "both").write_bytes(both)
    for file in (io.BytesIO(both), tmp_path / "both"):
        np.testing.assert_array_equal(decode(file, "x")[..., 0], shown(TWELVE, BitsStored=12))
    (tmp_path / "a.jpg").write_bytes(content)
    assert decode(tmp_path / "a.jpg", "a").shape == read_header(tmp_path / "a.jpg")[:3] == (6, 9, 1)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rtplan.dcm", r"rtplan\.dcm is a DICOM file without an image \(RTPLAN\)"),
        ("MR_truncated.dcm", r"MR_truncated\.dcm cannot be decoded: "),
        (
            "MR_small_jpeg_ls_lossless.dcm",
            r"nothing that is installed reads JPEG-LS Lossless Image Compression: install .*gdcm.*, or .*pylibjpeg",
        ),
        ("JPGExtended.dcm", r"12-bit precision; JPEG Extended .* is also read by .*pylibjpeg-libjpeg"),
    ],
)
def test_what_cannot_be_decoded_says_why_and_what_could(name, said):
    with pytest.raises(CorruptImage, match=said):
        decode(Path(get_testdata_file(name, download=False)), name)


def test_more_pixels_than_are_allowed_are_refused(monkeypatch):
    content = write(TWELVE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(CorruptImage, match=r"x has 9 × 6 pixels, more than the 50"):
        decode(content, "x")


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_damaged_bytes_give_an_image_or_a_corrupt_image_and_nothing_else():
    data = write(TWELVE, WindowCenter=1500.0, WindowWidth=1000.0).getvalue()
    for _ in range(150):
        damaged = bytearray(data)
        for position in RNG.integers(132, len(data), 4):
            damaged[position] = RNG.integers(0, 256)
        try:
            assert decode(io.BytesIO(bytes(damaged)), "x").dtype == np.uint8
        except CorruptImage:
            continue


def names(folder: Path) -> Path:
    """Fills two class folders with DICOM files as they are called in practice."""
    for kind in ("ill", "well"):
        fill(folder / kind, 1, size=(9, 6), mode="L")
        for name in ("a.dcm", "b.DCM", "IM00001", "1.2.840.113619.2.5"):
            write(TWELVE, folder / kind / name)
    (folder / "ill" / "DICOMDIR").write_bytes((folder / "ill" / "a.dcm").read_bytes())
    (folder / "well" / "README").write_text("hello")
    return folder


def test_dicom_files_in_folders_are_images_with_or_without_a_suffix(tmp_path):
    source = open_source(DataConfig(source=f"folder:{names(tmp_path)}", test_share=0.2), 0)
    assert sum(len(split) for split in source.splits.values()) == 10
    assert (source.image_size, source.channels) == ((6, 9), 1)
    assert any("1 without a suffix" in note for note in source.notes)
    assert len(image_files([tmp_path / "ill"])) == 5


def test_without_pydicom_they_are_counted_and_said_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "is_readable", lambda: False)
    source = open_source(DataConfig(source=f"folder:{names(tmp_path)}", test_share=0.5), 0)
    assert sum(len(split) for split in source.splits.values()) == 2
    said = "8 DICOM files (to read such files: pip install 'jaxnets[dicom]'), 1 without a suffix"
    assert any(said in note for note in source.notes)
    with pytest.raises(CorruptImage, match=r"a\.dcm is a DICOM file, and what reads these is missing: pip install"):
        decode(tmp_path / "ill" / "a.dcm", "a.dcm")


def test_a_table_names_dicom_files_with_or_without_their_suffix(tmp_path):
    for number in range(8):
        write(TWELVE, tmp_path / f"p{number}.dcm", BitsStored=12)
    ids = "".join(
        f"p{number}{'.dcm' * with_suffix},{'ill' if number % 2 else 'well'}\n"
        for number in range(8)
        for with_suffix in [number > 3]
    )
    (tmp_path / "labels.csv").write_text("id,finding\n" + ids)
    source = open_source(DataConfig(source=f"csv:{tmp_path / 'labels.csv'}"), 0)
    np.testing.assert_array_equal(source.splits["train"].image(0)[..., 0], shown(TWELVE, BitsStored=12))
    assert sum(len(split) for split in source.splits.values()) == 8
