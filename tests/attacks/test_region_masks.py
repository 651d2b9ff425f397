"""Where pixels may move and where attention is steered: against loops, a count over all places, and whole attacks."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from s3ta.attacks import (
    SPSA,
    AdamConfig,
    AttentionSteering,
    BoxRegion,
    GridRegion,
    PGDConfig,
    RandomKey,
    run_attack,
    threat_model_of,
)
from s3ta.attacks.region_masks import region_mask
from s3ta.config import from_json
from s3ta.errors import UserError

from .helpers import SHAPE, Linear, names, pictures

LABELS = torch.tensor([0, 1, 2])
HERE = RandomKey(0, ("a", "b", "c"))


def _like(height, width, count=3):
    return torch.zeros(count, 2, height, width)


def _rows_and_columns(mask):
    """First and one-past-last row and column of each image's region, which must be a full rectangle."""
    found = []
    for inside in mask[:, 0]:
        at = inside.nonzero()
        (top, left), (bottom, right) = at.amin(0).tolist(), at.amax(0).tolist()
        assert inside.sum() == (bottom - top + 1) * (right - left + 1)
        assert set(inside.unique().tolist()) <= {0, 1}
        found.append((top, bottom + 1, left, right + 1))
    return found


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (BoxRegion(height=0.5, width=0.2, row=0.5, column=0.5), (3, 9, 4, 6)),
        (BoxRegion(height=0.5, width=0.2, row=0.25, column=0.1), (0, 6, 0, 2)),
        (BoxRegion(height=0.5, width=0.2, row=0.75, column=0.9), (6, 12, 8, 10)),
        (BoxRegion(height=0.25, width=0.4, row=0.375, column=0.4), (3, 6, 2, 6)),
        (BoxRegion(height=1.0, width=1.0, row=0.5, column=0.5), (0, 12, 0, 10)),
        (BoxRegion(height=0.001, width=0.001, row=0.999, column=0.0), (11, 12, 0, 1)),
    ],
)
def test_a_box_covers_its_share_around_its_middle(region, expected):
    mask = region_mask(region, _like(12, 10), None)
    assert mask.shape == (1, 1, 12, 10)
    assert _rows_and_columns(mask) == [expected]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1), (0.1, 0.95)])
def test_a_box_at_the_edge_is_moved_inward_not_cut(row, column):
    (box,) = _rows_and_columns(
        region_mask(BoxRegion(height=0.5, width=0.3, row=float(row), column=float(column)), _like(12, 10), None)
    )
    assert box == (0 if row < 0.5 else 6, 6 if row < 0.5 else 12, 0 if column < 0.5 else 7, 3 if column < 0.5 else 10)


@pytest.mark.parametrize("size", [(5, 7), (12, 10), (1, 9)])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.6, 0.77, 1.0])
def test_a_box_has_its_size_wherever_it_is(size, share):
    ids = tuple(names(20))
    mask = region_mask(BoxRegion(height=share, width=share), _like(*size, 20), RandomKey(0, ids))
    high, wide = (max(1, min((abs(n - share * side), n) for n in range(side + 1))[1]) for side in size)
    for top, bottom, left, right in _rows_and_columns(mask):
        assert (bottom - top, right - left) == (high, wide)


def test_a_random_place_belongs_to_the_example_alone():
    region, ids = BoxRegion(height=0.3, width=0.3), names(12)
    like = _like(20, 20, 12)
    whole = region_mask(region, like, RandomKey(7, tuple(ids)))
    assert len(set(_rows_and_columns(whole))) > 8
    for i, name in enumerate(ids):
        assert torch.equal(region_mask(region, like[:1], RandomKey(7, (name,))), whole[i : i + 1])
    order = [11, 3, 0, 7]
    named = RandomKey(7, tuple(ids[i] for i in order), ("another attack", 5), restart=5)
    assert torch.equal(region_mask(region, like[:4], named), whole[order])
    assert not torch.equal(region_mask(region, like, RandomKey(8, tuple(ids))), whole)


def test_every_place_is_equally_likely():
    """4 x 5 places; the middle moved inward at the edges would put most boxes there."""
    count = 2000
    mask = region_mask(BoxRegion(height=0.4, width=3 / 7), _like(5, 7, count), RandomKey(1, tuple(names(count))))
    places = np.zeros((4, 5))
    for top, bottom, left, right in _rows_and_columns(mask):
        assert (bottom - top, right - left) == (2, 3)
        places[top, left] += 1
    assert places.min() > 0
    assert chisquare(places.ravel()).pvalue > 1e-3


def test_one_given_coordinate_leaves_the_other_to_chance():
    mask = region_mask(BoxRegion(height=0.25, width=0.2, row=0.0), _like(12, 10, 60), RandomKey(1, tuple(names(60))))
    boxes = _rows_and_columns(mask)
    assert {box[:2] for box in boxes} == {(0, 3)}
    assert {box[2] for box in boxes} == set(range(9))


def test_a_place_left_open_needs_a_name():
    with pytest.raises(AssertionError, match="needs `draw`"):
        region_mask(BoxRegion(row=0.5), _like(5, 7), None)


@pytest.mark.parametrize("size", [(3, 3), (6, 9), (5, 7), (4, 3), (16, 3), (224, 224)])
@pytest.mark.parametrize("rows", [("..#", ".##", "###"), ("#.",), ("#", ".", "#", "."), ("#",)])
def test_a_grid_is_stretched_over_the_image(rows, size):
    mask = region_mask(GridRegion(rows=rows), _like(*size), None)
    assert mask.shape == (1, 1, *size)
    expected = [
        [float(rows[y * len(rows) // size[0]][x * len(rows[0]) // size[1]] == "#") for x in range(size[1])]
        for y in range(size[0])
    ]
    assert mask[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("rows", "size", "vanished"),
    [
        (("." * 200 + "#",), (32, 32), "1 of the 1"),
        (("#" + "." * 199 + "#",), (32, 32), "1 of the 2"),
        (("#", ".", ".", "#"), (2, 5), "1 of the 2"),
    ],
)
def test_a_grid_is_refused_where_a_cell_of_it_covers_no_pixel(rows, size, vanished):
    with pytest.raises(UserError, match=f"{vanished} '#' of a region of .* cover no pixel of an image of {size[0]} x"):
        region_mask(GridRegion(rows=rows), _like(*size), None)


def test_cells_outside_the_region_may_cover_no_pixel():
    assert region_mask(GridRegion(rows=("#.#.",)), _like(1, 2), None).tolist() == [[[[1.0, 1.0]]]]


def test_a_mask_has_the_type_of_the_images():
    for dtype in (torch.float32, torch.float64):
        for region in (BoxRegion(), BoxRegion(row=0.5, column=0.5), GridRegion(rows=("#.",))):
            assert region_mask(region, _like(5, 7).to(dtype), HERE).dtype == dtype


MASKS = {
    "box": BoxRegion(height=0.4, width=0.4, row=0.5, column=0.5),
    "random": BoxRegion(height=0.4, width=0.4),
    "grid": GridRegion(rows=("..#", "#..")),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("which", MASKS)
@pytest.mark.parametrize("kind", ["pgd", "adam", "spsa", "eight_bit"])
def test_pixels_move_inside_the_mask_and_nowhere_else(kind, which, norm):
    clean = (pictures(3) * 255).round() / 255
    common = {"objective": "untargeted", "norm": norm, "radius": 0.25, "mask": MASKS[which], "num_attack_steps": 4}
    config = {
        "pgd": PGDConfig(**common, step_size=0.1),
        "adam": AdamConfig(**common),
        "spsa": PGDConfig(**common, step_size=0.1, gradient=SPSA(num_directions=3)),
        "eight_bit": PGDConfig(**common, step_size=0.1, eight_bit=True),
    }[kind]
    final = run_attack(Linear(3), clean, LABELS, config=config, draw=HERE).final
    mask = region_mask(MASKS[which], clean, HERE).expand_as(clean).bool()
    assert torch.equal(final[~mask], clean[~mask])
    assert (final != clean)[mask].double().mean() > 0.5
    change = (final - clean).flatten(1)
    distance = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (distance <= 0.25 + 1e-9).all()
    assert (distance > 0.2).all()
    assert (threat_model_of(config, clean, HERE).violation(final, clean) <= 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_change_outside_the_mask_is_a_violation(norm):
    clean = torch.full((3, *SHAPE), 0.5)
    config = PGDConfig(norm=norm, radius=0.5, mask=MASKS["box"])
    changed = clean.clone()
    changed[0, 0, 0, 0] += 0.125
    changed[1, 0, 2, 3] += 0.125
    assert threat_model_of(config, clean, None).violation(changed, clean).tolist() == [0.125, 0, 0]


def test_the_mask_stays_where_it_is_in_every_restart_and_attack():
    """All of them together are one threat model, whose worst case is taken."""
    clean, moved = pictures(3), []
    for name, restart, kind in (("a", 0, PGDConfig), ("a", 1, PGDConfig), ("b", 0, AdamConfig)):
        config = kind(objective="untargeted", radius=0.1, mask=MASKS["random"], num_attack_steps=1)
        draw = RandomKey(0, HERE.ids, (name, restart), restart)
        final = run_attack(Linear(3), clean, LABELS, config=config, draw=draw).final
        moved.append(((final != clean).any(dim=1), final))
    assert torch.equal(moved[0][0], moved[1][0])
    assert torch.equal(moved[0][0], moved[2][0])
    assert not torch.equal(moved[0][1], moved[1][1])


@pytest.mark.parametrize(
    ("cls", "text", "sentence"),
    [
        (GridRegion, '{"rows": []}', "the rows of a region must be of one length, and there must be some"),
        (GridRegion, '{"rows": [""]}', "the rows of a region must be of one length, and there must be some"),
        (GridRegion, '{"rows": ["#.", "#"]}', "the rows of a region must be of one length, and there must be some"),
        (GridRegion, '{"rows": ["#x"]}', "a region is drawn with '#' (inside) and '.' (outside)"),
        (GridRegion, '{"rows": ["..", ".."]}', "something must be inside"),
        (GridRegion, "{}", "rows: Field required"),
        (BoxRegion, '{"height": 0}', "height: Input should be greater than 0 (got 0)"),
        (BoxRegion, '{"width": 1.5}', "width: Input should be less than or equal to 1 (got 1.5)"),
        (BoxRegion, '{"row": -0.1}', "row: Input should be greater than or equal to 0 (got -0.1)"),
        (BoxRegion, '{"column": 2}', "column: Input should be less than or equal to 1 (got 2)"),
        (BoxRegion, '{"rows": ["#"]}', "rows: Extra inputs are not permitted"),
        (
            PGDConfig,
            '{"mask": {"kind": "circle"}}',
            "mask: Input tag 'circle' found using 'kind' does not match any of the expected tags: 'box', 'grid'",
        ),
        (PGDConfig, '{"mask": {"height": 0.5}}', "mask: it needs a `kind`"),
        (AttentionSteering, '{"towards": "region"}', "steering towards a region needs `region`, and only that does"),
        (
            AttentionSteering,
            '{"region": {"kind": "box"}}',
            "steering towards a region needs `region`, and only that does",
        ),
    ],
)
def test_a_bad_region_is_refused_in_one_sentence(cls, text, sentence):
    with pytest.raises(UserError) as error:
        from_json(cls, text, "file r.json")
    message = str(error.value)
    assert message.startswith("Bad file r.json: ")
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message
