"""From files to pixels by name: torchvision's pixels to the bit, Pillow's, and how far OpenCV's are from them (X18)."""

import hashlib

import cv2
import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import ImageFolder, pil_loader

from s3ta.config import from_json, override
from s3ta.data import (
    PREPROCESSINGS,
    DataConfig,
    Preprocessing,
    get_preprocessing,
    load_image,
    open_dataset,
    preprocessing_of_transform,
    with_evaluation_transform,
)
from s3ta.data.image_files import fit
from s3ta.data.preprocessing import DEFAULT, described
from s3ta.errors import UserError

from .helpers import pixels

BICUBIC, BILINEAR = transforms.InterpolationMode.BICUBIC, transforms.InterpolationMode.BILINEAR
# As RobustBench defines them; after Res224, which leaves rectangles, our cut of the centre.
PEERS = {
    "Res256Crop224": (transforms.Resize(256), transforms.CenterCrop(224)),
    "BicubicRes256Crop224": (transforms.Resize(256, interpolation=BICUBIC), transforms.CenterCrop(224)),
    "Res224": (transforms.Resize(224), transforms.CenterCrop(224)),
    "Crop288": (transforms.CenterCrop(288),),
}
SIZES = [
    (224, 224),
    (256, 256),
    (288, 289),
    (500, 375),
    (333, 500),
    (257, 411),
    (301, 299),
    (97, 64),
    (63, 320),
    (1, 3),
]


def _picture(width, height, mode="RGB"):
    """Waves and noise, so that a shift by one pixel shows."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 5) + np.cos(columns / k) for k in (3, 7, 11)], -1) * 50 + 128
    noise = np.random.default_rng(width * 1000 + height).integers(-20, 20, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_robustbench_names_give_torchvisions_pixels(name, size):
    how, picture = PREPROCESSINGS[name], _picture(*size)
    expected = np.asarray(transforms.Compose(PEERS[name])(picture))
    assert np.array_equal(np.asarray(fit(picture, how.image_size, how)), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("resize", "image_size"), [(35, 32), (32, 32), (37, 32), (33, 33), (36, 31)])
def test_numbers_without_a_name_give_torchvisions_pixels(interpolation, resize, image_size):
    mode = transforms.InterpolationMode(interpolation)
    peer = transforms.Compose([transforms.Resize(resize, interpolation=mode), transforms.CenterCrop(image_size)])
    how = preprocessing_of_transform(resize, interpolation, image_size)
    for width in range(20, 76, 5):
        for height in (31, 36, 40, 57, 61):
            for mode in ("RGB", "L"):
                picture = _picture(width, height, mode)
                ours = np.asarray(fit(picture, image_size, how))
                assert np.array_equal(ours, np.asarray(peer(picture))), (width, height, mode)


@pytest.mark.parametrize(("crop_pct", "resize"), [(0.875, 73), (0.9, 71), (0.95, 67), (1.0, 64)])
def test_views_give_timms_pixels(crop_pct, resize):
    peer = timm.data.create_transform((3, 64, 64), interpolation="bicubic", crop_pct=crop_pct, normalize=False)
    for size in ((90, 71), (64, 200), (55, 67)):
        picture = _picture(*size)
        ours = np.asarray(fit(picture, 64, preprocessing_of_transform(resize, "bicubic", 64))).transpose(2, 0, 1)
        assert np.array_equal(ours, np.asarray(peer(picture)))


def _by_hand(picture, size, target, resize):
    """Shorter side to `target` by `resize`, longer side to the nearest pixel, offsets down."""
    width, height = picture.size
    short = min(width, height)
    new = tuple(target if side == short else int((2 * side * target + short) // (2 * short)) for side in picture.size)
    array = np.asarray(resize(picture, new) if new != picture.size else picture)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    return array[top : top + size, left : left + size]


def _pillow(picture, size):
    return picture.resize(size, Image.Resampling.BICUBIC)


def _opencv(picture, size):
    return cv2.resize(np.array(picture), size, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (376, 263), (257, 411), (97, 64), (224, 224), (256, 301)])
def test_the_default_is_pillows_bicubic_with_offsets_down(size):
    picture = _picture(*size)
    assert np.array_equal(np.asarray(fit(picture, 96)), _by_hand(picture, 96, 96, _pillow))
    assert np.array_equal(np.asarray(fit(picture, 96, DEFAULT)), _by_hand(picture, 96, 96, _pillow))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [*SIZES, (384, 259), (512, 769), (512, 771)], ids=str)
def test_fd_is_e1_with_opencvs_bicubic_to_one_of_255(size, mode):
    """Shorter side 256, longer side to the nearest pixel with halves up (769 -> 384.5 -> 385), centre of 224, offsets down."""
    picture = _picture(*size, mode)
    ours, peer = np.asarray(fit(picture, 224, PREPROCESSINGS["fd"])), _by_hand(picture, 224, 256, _opencv)
    assert ours.shape == peer.shape
    assert np.abs(ours.astype(int) - peer.astype(int)).max() <= 1


def test_offsets_down_and_to_the_nearest_pixel_differ_where_the_surplus_is_odd():
    fd, bicubic = Preprocessing(resize=256), PREPROCESSINGS["BicubicRes256Crop224"]
    for size, same in (((400, 320), True), ((256, 258), True), ((256, 259), False), ((371, 256), False)):
        ours, theirs = (np.asarray(fit(_picture(*size), 224, how)) for how in (fd, bicubic))
        assert np.array_equal(ours, theirs) == same, size  # surplus 96, 34; then 35 and 147: 17 or 18, 73 or 74


# --- X18: libraries --------------------------------------------------------------------------------------------------------


def _libraries(picture):
    """Shorter side 256, centre of 224: Pillow's by us, and the others, `fd` among them, as int."""
    ours = np.asarray(fit(picture, 224, Preprocessing(resize=256))).astype(int)
    width, height = picture.size
    scale = 256 / min(width, height)
    new = (max(256, round(width * scale)), max(256, round(height * scale)))
    left, top = (new[0] - 224) // 2, (new[1] - 224) // 2

    def cut(array):
        return np.asarray(array)[top : top + 224, left : left + 224].astype(int)

    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    antialiased = transforms.functional.resize(tensor, [new[1], new[0]], BICUBIC, antialias=True).permute(1, 2, 0)
    return ours, {
        "Pillow": cut(picture.resize(new, Image.Resampling.BICUBIC)),
        "torchvision on tensors": cut(antialiased.numpy()),
        "OpenCV": cut(cv2.resize(np.array(picture), new, interpolation=cv2.INTER_CUBIC)),
        "fd": np.asarray(fit(picture, 224, PREPROCESSINGS["fd"])).astype(int),
    }


def _largest(picture):
    ours, others = _libraries(picture)
    largest = {name: int(np.abs(ours - other).max()) for name, other in others.items()}
    return largest | {"fd and OpenCV": int(np.abs(others["fd"] - others["OpenCV"]).max())}


def test_pixels_of_a_drawn_picture_differ_from_other_libraries_as_documented():
    """Largest difference of any pixel, of 255: Pillow 0, torchvision on tensors 1, OpenCV without averaging 30; fd is
    OpenCV's to 1."""
    largest = _largest(_picture(1000, 800))
    assert largest["Pillow"] == 0
    assert largest["fd and OpenCV"] <= 1
    assert largest["torchvision on tensors"] <= 2
    assert 20 <= largest["OpenCV"] <= 45, largest


def test_pixels_of_photographs_differ_from_other_libraries_as_documented(data_folder):
    """Largest difference on five photographs of ImageNet, of 255: Pillow 0, torchvision on tensors 7, OpenCV 56.

    OpenCV's bicubic has another kernel and does not average where it shrinks: FD's pixels (E1) are not Pillow's. Ours of
    `fd` are OpenCV's to 1."""
    files = sorted((data_folder / "imagenet-sample" / "original").rglob("*.JPEG"))
    found = {file.stem: _largest(Image.open(file).convert("RGB")) for file in files}
    assert len(found) == 5
    print(found)
    largest = {name: max(one[name] for one in found.values()) for name in next(iter(found.values()))}
    assert largest["fd and OpenCV"] <= 1
    assert largest["Pillow"] == 0
    assert largest["torchvision on tensors"] <= 10, largest
    assert 40 <= largest["OpenCV"] <= 75, largest
    assert min(one["OpenCV"] for one in found.values()) >= 5


def test_folders_of_photographs_equal_torchvision(data_folder):
    """Image files read by us and by torchvision's ImageFolder with RobustBench's transforms: the same 224 x 224 pixels."""
    for name in ("Res256Crop224", "BicubicRes256Crop224"):
        peer = ImageFolder(str(data_folder / "imagenet-sample" / "val"), transforms.Compose(PEERS[name]))
        config = DataConfig(source="folder:imagenet-sample", preprocessing=PREPROCESSINGS[name])
        ours = open_dataset(config, "test", data_folder)
        assert list(ours.labels) == peer.targets
        assert list(ours.classes) == peer.classes
        for i in range(7, 1000, 150):
            assert np.array_equal(ours.image(i).transpose(1, 2, 0), np.asarray(peer[i][0]))


# --- names and configs -------------------------------------------------------------------------------------------------------


def test_every_name_is_described_by_itself():
    for name, how in PREPROCESSINGS.items():
        told = described(how, how.image_size or 64)
        assert told["name"] == name
        assert told["image_size"] == (how.image_size or 64)
    assert described(PREPROCESSINGS["Res256Crop224"], 224) == {
        "name": "Res256Crop224",
        "resize": 256,
        "interpolation": "bilinear",
        "rounding": "torchvision",
        "image_size": 224,
    }
    assert described(DEFAULT, 96)["resize"] == 96
    assert described(PREPROCESSINGS["Crop288"], 288)["resize"] is None


def test_the_same_pixels_have_the_same_name():
    assert described(preprocessing_of_transform(256, "bilinear", 224), 224)["name"] == "Res256Crop224"
    assert described(preprocessing_of_transform(224, "bilinear", 224), 224)["name"] == "Res224"
    assert described(preprocessing_of_transform(235, "bicubic", 224), 224)["name"] == "custom"
    assert described(Preprocessing(resize=96), 96)["name"] == "default"
    assert described(Preprocessing(resize=256), 224)["name"] == "custom"
    assert (
        described(Preprocessing(resize=256, interpolation="bicubic_aliased", rounding="half_up"), 224)["name"] == "fd"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Res256Crop225"', "Unknown preprocessing 'Res256Crop225'. Did you mean Res256Crop224"),
        ('{"resize": 100, "image_size": 224}', "a cut of 224 px does not fit a shorter side of 100 px"),
        ('{"resize": 100, "interpolation": "none"}', "interpolation none does not resize"),
        ('{"resize": 0}', "greater than 0"),
        ('{"resize": true}', "valid integer"),
        ('{"interpolation": "lanczos"}', "'bicubic'"),
        ('{"crop": 3}', "crop"),
        ("7", "preprocessing"),
    ],
)
def test_bad_preprocessings_are_named(text, words):
    with pytest.raises(UserError) as caught:
        from_json(DataConfig, f'{{"preprocessing": {text}}}', "data")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preprocessing_by_name_equals_the_same_one_by_numbers():
    by_name = override(DataConfig(), ["preprocessing=BicubicRes256Crop224"])
    assert by_name.preprocessing == get_preprocessing("BicubicRes256Crop224")
    assert from_json(DataConfig, by_name.model_dump_json(), "data") == by_name
    assert override(by_name, ["preprocessing.resize=300"]).preprocessing.resize == 300
    with pytest.raises(UserError, match="Unknown preprocessing 'fb'"):
        get_preprocessing("fb")


def test_the_default_preprocessing_is_the_same_data_whether_it_is_named_or_not():
    assert DataConfig().identity() == DataConfig(preprocessing=DEFAULT).identity() == {}
    assert DataConfig(preprocessing=PREPROCESSINGS["fd"]).identity()["preprocessing"]["resize"] == 256


def test_a_models_view_holds_for_files_unless_a_person_chose():
    files = DataConfig(source="folder:flowers")
    viewed = with_evaluation_transform(files, 288, 320, "bicubic")
    assert viewed.image_size == 288
    assert described(viewed.preprocessing, 288)["resize"] == 320
    chosen = files.model_copy(update={"preprocessing": DEFAULT})
    assert with_evaluation_transform(chosen, 288, 320, "bicubic").preprocessing == DEFAULT
    assert with_evaluation_transform(DataConfig(source="npz:x.npz"), 288, 320, "bicubic").preprocessing is None
    with pytest.raises(UserError, match="A cut of 224 px does not fit a shorter side of 200 px"):
        with_evaluation_transform(files, 224, 200, "bicubic")


# --- data sets ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flowers(tmp_path):
    for name in ("daisy", "rose"):
        for i in range(2):
            path = tmp_path / "flowers" / "val" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(60 + 7 * i, 50).save(path)
    return tmp_path


def _open(root, source="folder:flowers", **settings):
    return open_dataset(DataConfig(source=source, **settings), "test", root)


def test_folders_follow_their_preprocessing(flowers):
    how = preprocessing_of_transform(40, "bilinear", 32)
    data = _open(flowers, preprocessing=how)
    assert data.shape == (3, 32, 32)  # a name that says a size needs no other
    peer = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32)])
    for i in range(4):
        expected = np.asarray(peer(Image.open(flowers / "flowers" / data.ids[i]))).transpose(2, 0, 1)
        assert np.array_equal(data.image(i), expected)
    assert data.preprocessing == described(how, 32)


def test_fingerprints_differ_by_preprocessing_and_the_default_keeps_its_own(flowers):
    inside = flowers / "flowers"
    listing = "".join(
        f"{p.relative_to(inside).as_posix()}:{p.stat().st_size}\n" for p in sorted((inside / "val").rglob("*.png"))
    )
    old = hashlib.sha256(f"(3, 32, 32)\n{listing}".encode()).hexdigest()[:16]  # as it was before there were names
    assert _open(flowers, image_size=32).fingerprint == old
    assert _open(flowers, image_size=32, preprocessing=DEFAULT).fingerprint == old
    assert _open(flowers, image_size=32, preprocessing=Preprocessing(resize=32)).fingerprint == old
    others = [
        _open(flowers, image_size=32, preprocessing=how).fingerprint
        for how in (
            Preprocessing(resize=40),
            Preprocessing(resize=41),
            Preprocessing(resize=40, rounding="torchvision"),
            Preprocessing(resize=40, interpolation="bilinear"),
            Preprocessing(interpolation="none"),
        )
    ]
    assert len({old, *others}) == 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"preprocessing": PREPROCESSINGS["Crop288"], "image_size": 224},
            "Crop288 gives 288 px, but 224 px are asked for",
        ),
        (
            {"preprocessing": Preprocessing(resize=20), "image_size": 32},
            "A cut of 32 px does not fit a shorter side of 20",
        ),
        ({"preprocessing": Preprocessing(resize=20)}, "needs a size for its images"),
    ],
    ids=["size", "cut", "none"],
)
def test_sizes_that_disagree_are_refused(flowers, settings, words):
    with pytest.raises(UserError) as caught:
        _open(flowers, **settings)
    assert words in str(caught.value)


def test_arrays_say_what_was_done_to_them(tmp_path):
    np.savez(tmp_path / "x.npz", images=pixels(6, 8, 8, 3), labels=np.arange(6) % 2)
    np.savez(tmp_path / "y.npz", images=pixels(6, 8, 9, 3), labels=np.arange(6) % 2)
    stored = {"name": "none", "resize": None, "interpolation": "none", "rounding": "none"}
    assert _open(tmp_path, "npz:x.npz").preprocessing == stored | {"image_size": 8}
    assert _open(tmp_path, "npz:x.npz", image_size=8).preprocessing == stored | {"image_size": 8}
    assert _open(tmp_path, "npz:y.npz").preprocessing == stored | {"image_size": None}
    assert _open(tmp_path, "npz:x.npz", image_size=5).preprocessing == described(DEFAULT, 5)
    for source in ("npz:x.npz", "digits", "torchvision:CIFAR10"):
        with pytest.raises(UserError, match=r"is for image files \(folder:PATH\), but the images of"):
            _open(tmp_path, source, preprocessing=PREPROCESSINGS["fd"])


# --- odd files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["CMYK", "LA", "RGBA", "L", "P"])
def test_odd_colours_are_those_of_torchvisions_loader(tmp_path, mode):
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    picture = _picture(70, 61).convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path)
    how = preprocessing_of_transform(40, "bicubic", 32)
    peer = transforms.Compose([transforms.Resize(40, interpolation=BICUBIC), transforms.CenterCrop(32)])
    assert np.array_equal(load_image(path, 32, 3, how).transpose(1, 2, 0), np.asarray(peer(pil_loader(str(path)))))


def test_a_cameras_note_to_turn_the_picture_is_not_followed(tmp_path):
    note = Image.Exif()
    note[0x0112] = 6  # "turn by 90 degrees"
    _picture(64, 64).save(tmp_path / "turned.png", exif=note)
    with Image.open(tmp_path / "turned.png") as stored:
        assert stored.getexif()[0x0112] == 6
    assert np.array_equal(load_image(tmp_path / "turned.png", 64, 3).transpose(1, 2, 0), np.asarray(_picture(64, 64)))


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_a_picture_of_one_pixel_is_resized(tmp_path, name):
    Image.new("RGB", (1, 1), (9, 80, 200)).save(tmp_path / "x.png")
    how = PREPROCESSINGS[name]
    size = how.image_size or 32
    found = load_image(tmp_path / "x.png", size, 3, how)
    assert found.shape == (3, size, size)
    lit = (found == np.array([9, 80, 200])[:, None, None]).all(0)
    assert lit.sum() == (1 if name == "Crop288" else size * size)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_strip_that_would_grow_without_end_is_refused(tmp_path, size):
    Image.new("L", size, 7).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png has \d+x\d+ pixels, too long to be resized to"):
        load_image(tmp_path / "x.png", 224, 3)
    assert load_image(tmp_path / "x.png", 224, 3, Preprocessing(interpolation="none")).sum() == 3 * 224 * 7
