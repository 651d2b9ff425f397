"""Classes matched by name: ImageNet-A's 200 of 1,000 (E13, X32), and labels that would mean other things (X17)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from s3ta.data import (
    DataConfig,
    Dataset,
    RelabelledDataset,
    check_model_fits_data,
    class_names_from_numbers,
    class_order_note,
    fetch_batch,
    imagenet_wnids,
    match_classes,
    open_dataset,
    order_classes_as_numbers,
)
from s3ta.errors import UserError
from s3ta.models import Classifier

from .helpers import IMAGENET_A, IMAGENET_A_WNIDS, Numbered

# --- ImageNet's names -----------------------------------------------------------------------------------------------------


def test_imagenet_has_a_thousand_names_in_alphabetical_order():
    names = imagenet_wnids()
    assert len(set(names)) == 1000
    assert list(names) == sorted(names)
    assert (names[0], names[207], names[999]) == (
        "n01440764",
        "n02099601",
        "n15075141",
    )  # tench, golden retriever, tissue


def test_imagenet_a_is_the_published_list():
    assert len(set(IMAGENET_A)) == 200
    assert sum(IMAGENET_A) == 102_178  # E13
    assert list(IMAGENET_A) == sorted(IMAGENET_A)
    assert tuple(imagenet_wnids()[number] for number in IMAGENET_A) == IMAGENET_A_WNIDS


def test_the_development_lists_agree(data_folder):
    names = sorted(path.name for path in (data_folder / "imagenet-sample" / "val").iterdir())
    assert names == list(imagenet_wnids())
    listed = next((p for p in _lists(data_folder) if p.is_file()), None)
    if listed is None:
        pytest.skip("imagenet_a_wnids.json is not beside the development images")
    stored = json.loads(listed.read_text())
    assert stored["imagenet1k_indices"] == list(IMAGENET_A)
    assert stored["wnids"] == list(IMAGENET_A_WNIDS)


def _lists(data_folder):
    beside = [Path(__file__).parents[3] / "shared" / "data", data_folder, data_folder.parent]
    return [folder / "imagenet_a_wnids.json" for folder in beside]


# --- ImageNet-A, in small and whole ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet_a(tmp_path_factory):
    """A folder with ImageNet-A's 200 class folders, and one picture in each; its grey is the class number."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(IMAGENET_A_WNIDS):
        path = root / "imagenet-a" / "val" / name / "0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (number,) * 3).save(path)
    return open_dataset(DataConfig(source="folder:imagenet-a", image_size=4), "test", root)


class Thousand(nn.Module):
    """Logit k of an image of grey g is high where class k is the one that g stands for, and highest at class 0."""

    def forward(self, images):
        grey = (images.mean((1, 2, 3)) * 255).round().long()
        logits = torch.linspace(-1, 1, 1000).repeat(len(images), 1)
        logits[torch.arange(len(images)), torch.tensor(IMAGENET_A)[grey]] = 5.0
        logits[:, 0] = 9.0  # tench, which is not in ImageNet-A
        return logits


def test_200_way_answers_are_sliced_before_the_softmax(imagenet_a):
    match = match_classes(imagenet_wnids(), imagenet_a, "data")
    assert match.outputs == IMAGENET_A
    assert match.dataset is imagenet_a
    model = Classifier(Thousand(), name="t", num_classes=200, image_size=4, outputs=match.outputs)
    check_model_fits_data(match.dataset, channels=3, num_classes=200, image_size=4, classes=IMAGENET_A_WNIDS)
    batch = fetch_batch(match.dataset, range(200))
    logits = model(batch.images)
    assert logits.shape == (200, 200)
    assert torch.equal(logits, Thousand()(batch.images)[:, list(IMAGENET_A)])
    assert torch.allclose(logits.softmax(1).sum(1), torch.ones(200))
    too_early = Thousand()(batch.images).softmax(1)[:, list(IMAGENET_A)]
    assert (too_early.sum(1) < 0.5).all()  # X32: what a softmax over 1,000 leaves
    assert torch.equal(logits.argmax(1), batch.labels)


def test_1000_way_answers_count_in_the_models_classes(imagenet_a):
    match = match_classes(imagenet_wnids(), imagenet_a, "model")
    assert match.outputs is None
    assert isinstance(match.dataset, Dataset)
    assert list(match.dataset.classes) == list(imagenet_wnids())
    assert match.dataset.labels.tolist() == list(IMAGENET_A)
    assert match.dataset.ids == imagenet_a.ids
    assert match.dataset.fingerprint != imagenet_a.fingerprint
    check_model_fits_data(match.dataset, channels=3, num_classes=1000, image_size=4, classes=imagenet_wnids())
    batch = fetch_batch(match.dataset, [3, 199])
    assert batch.labels.tolist() == [IMAGENET_A[3], IMAGENET_A[199]]
    assert torch.equal(batch.images, fetch_batch(imagenet_a, [3, 199]).images)
    assert Thousand()(batch.images).argmax(1).tolist() == [0, 0]  # the same answers are wrong, 1000-way


# --- in general -----------------------------------------------------------------------------------------------------------


class Pets(Numbered):
    source, split, classes = "pets", "test", ("cat", "dog", "hen")

    def __init__(self):
        super().__init__(6)
        self.labels = np.arange(6) % 3


def test_the_same_classes_in_another_order_are_matched_by_name():
    names = ["hen", "cat", "dog"]
    assert match_classes(names, Pets(), "data").outputs == (1, 2, 0)
    turned = match_classes(names, Pets(), "model").dataset
    assert turned.labels.tolist() == [1, 2, 0, 1, 2, 0]
    assert [turned.classes[label] for label in turned.labels] == ["cat", "dog", "hen"] * 2


@pytest.mark.parametrize("answers", ["data", "model"])
def test_equal_class_names_change_nothing(answers):
    data = Pets()
    assert match_classes(("cat", "dog", "hen"), data, answers) == (None, data)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["cat", "cow", "pig", "eel"],
            "2 of the 3 classes of pets are not among the model's 4, which are named like 'cat': 'dog', 'hen'.",
        ),
        ([], "3 of the 3 classes of pets are not among the model's 0"),
        (["cat", "dog", "hen", "dog"], "The model has 1 of the classes of pets under one name twice"),
    ],
)
@pytest.mark.parametrize("answers", ["data", "model"])
def test_classes_without_a_single_counterpart_are_named(names, words, answers):
    with pytest.raises(UserError) as caught:
        match_classes(names, Pets(), answers)
    assert words in str(caught.value)


def test_a_double_name_that_the_data_have_not_does_not_matter():
    assert match_classes(["crane", "hen", "crane", "cat", "dog"], Pets(), "data").outputs == (3, 4, 1)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "hen", "dog"], ("Class 1 of the model is 'hen', but pets has 'dog' there", "--match-classes data")),
        (["cat", "dog", "cow"], ("Class 2 of the model is 'cow', but pets has 'hen' there", "choose other data")),
        (["eel", "hen", "dog", "cat"], ("The model has 4 classes, but pets has 3", "--match-classes data", "model")),
        (["eel", "hen", "dog", "cow"], ("The model has 4 classes, but pets has 3: set model.num_classes=3",)),
    ],
)
def test_labels_that_would_mean_other_things_are_refused(classes, words):
    with pytest.raises(UserError) as caught:
        check_model_fits_data(Pets(), channels=1, num_classes=len(classes), classes=classes)
    for word in words:
        assert word in str(caught.value)


def test_relabelled_data_keep_everything_else():
    data = Pets()
    turned = RelabelledDataset(data, ["hen", "cat", "dog"], [1, 2, 0])
    assert (turned.source, turned.split, turned.shape) == (data.source, data.split, data.shape)
    assert np.array_equal(turned.image(4), data.image(4))
    assert np.array_equal(turned.image(4, (1, 2)), data.image(4, (1, 2)))
    others = RelabelledDataset(data, ["hen", "cat", "dog", "cow"], [1, 2, 0])
    assert len({data.fingerprint, turned.fingerprint, others.fingerprint}) == 3


# --- classes whose names are numbers ------------------------------------------------------------------------------------------


class Folders(Numbered):
    """Two examples of each class, in the order of the folders' names as text."""

    source, split = "folder:numbers", "test"

    def __init__(self, names):
        self.classes = tuple(sorted(names))
        super().__init__(2 * len(self.classes))
        self.labels = np.arange(2 * len(self.classes)) // 2


def _folder_of(data, index):
    return Folders(data.classes).classes[index // 2]


@pytest.mark.parametrize("count", [10, 11, 100, 1000])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_are_counted_as_numbers(count, first):
    """01.b, 01.d, 01.f: the label of folder N is N."""
    data = Folders([str(first + number) for number in range(count)])
    counted, note = order_classes_as_numbers(data, count, None)
    assert counted.classes == tuple(str(first + number) for number in range(count))
    for index in range(len(data.ids)):
        assert counted.labels[index] == int(_folder_of(data, index)) - first
    assert counted.ids == data.ids
    if count + first > 10:
        assert f"folder {count - 1 + first} is the model's last output, {count - 1}" in note
        assert "--class-names" in note
    check_model_fits_data(counted, channels=1, num_classes=count)


def test_zero_padded_and_few_numbers_stay_as_they_were():
    for names in ([f"{number:03d}" for number in range(100)], list("0123456789"), ["0", "1"]):
        data = Folders(names)
        assert order_classes_as_numbers(data, len(names), None) == (data, "")


@pytest.mark.parametrize(
    ("names", "num_classes"),
    [
        ([str(number) for number in range(12)], 13),
        ([str(number) for number in range(2, 14)], 12),
        ([str(2 * number) for number in range(12)], 12),
        (["0", "1", "2", "10"], 4),
        (["1", "01", "2"], 3),
        (["0", "1", "10", "two"], 4),
        (["0", "1", "2.5"], 3),
        (["-1", "0", "1"], 3),
        (["\u0661", "\u0662"], 2),
    ],
)
def test_numbers_that_do_not_fit_the_model_stay_as_text(names, num_classes):
    data = Folders(names)
    assert order_classes_as_numbers(data, num_classes, None) == (data, "")


def test_a_model_keeps_the_order_of_its_own_names():
    """A run that was trained on folders in the order of text."""
    names = [str(number) for number in range(12)]
    data = Folders(names)
    assert order_classes_as_numbers(data, 12, sorted(names)) == (data, "")
    turned, note = order_classes_as_numbers(data, 12, names)
    assert list(turned.classes) == names
    assert "in the order that the model has them in" in note
    backwards, _ = order_classes_as_numbers(data, 12, names[::-1])
    assert [backwards.classes[label] for label in backwards.labels] == [_folder_of(data, i) for i in range(24)]
    check_model_fits_data(backwards, channels=1, num_classes=12, classes=names[::-1])


def test_numbers_are_not_taken_for_a_model_that_names_its_classes_otherwise():
    data = Folders([str(number) for number in range(12)])
    names = [f"animal {number}" for number in range(12)]
    assert order_classes_as_numbers(data, 12, names) == (data, "")
    with pytest.raises(UserError, match="Class 0 of the model is 'animal 0', but folder:numbers has '0' there"):
        check_model_fits_data(data, channels=1, num_classes=12, classes=names)


def test_arrays_say_the_order_of_their_classes_themselves():
    data = Folders([str(number) for number in range(12)])
    data.source = "npz:numbers"
    assert order_classes_as_numbers(data, 12, None) == (data, "")


def test_some_numbers_of_a_model_without_names_are_matched():
    data = Folders(["7", "12", "0"])
    names = class_names_from_numbers(data, 20)
    assert match_classes(names, data, "data").outputs == (0, 12, 7)
    assert match_classes(
        class_names_from_numbers(Folders(["007", "012"]), 20), Folders(["007", "012"]), "data"
    ).outputs == (
        7,
        12,
    )
    assert class_names_from_numbers(Folders(["7", "20"]), 20) is None
    assert class_names_from_numbers(Folders(["7", "ant"]), 20) is None


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ([f"class{number}" for number in range(12)], "'class11' comes before 'class2'"),
        ([f"{number}_{'bar' if number % 2 else 'foo'}" for number in range(12)], "'11_bar' comes before '1_bar'"),
        ([str(number) for number in range(-1, 11)], "'10' comes before '2'"),
        ([f"{number}.0" for number in range(12)], "'11.0' comes before '2.0'"),
        (["-1", "-2", "0"], "'-1' comes before '-2'"),
        (["fold 1 part 2", "fold 1 part 10"], "'fold 1 part 10' comes before 'fold 1 part 2'"),
    ],
)
def test_names_that_hold_numbers_in_another_order_are_noted(names, first):
    data = Folders(names)
    note = class_order_note(data, None)
    assert first in note
    assert "--class-names FILE" in note
    assert class_order_note(data, names) == "", "the model knows its names"


@pytest.mark.parametrize(
    "names",
    [
        [f"{number:03d}.bird" for number in range(1, 200, 9)],
        ["n01440764", "n01443537", "n10148035"],
        ["cat", "dog 2", "dog 3", "eel 1"],
        ["a-1", "a1", "b"],
        ["0", "0.5", "1", "1.10", "1.9"],
        [str(number) for number in range(10)],
        ["ant", "bee"],
    ],
)
def test_names_in_the_order_of_their_numbers_need_no_note(names):
    assert class_order_note(Folders(names), None) == ""
