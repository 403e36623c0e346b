"""Detector and colours: mmdet's numbers, and the whole chain once on tiny random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_graders
import torch
from goldens import ABSENT, facts, tensors
from mdm.errors import MdmError
from mdm_geneval import GenEval, GenEvalOptions
from mdm_geneval.colors import ColorReader
from mdm_geneval.detector import Detector, instances, seen_size
from mdm_geneval.metadata import COLORS
from mdm_geneval.pictures import read_picture
from mdm_geneval.verdict import objects_that_count
from PIL import Image

DETECTOR = facts("images/geneval", "detector")
DOG = {"tag": "colors", "prompt": "a red dog", "include": [{"class": "dog", "count": 1, "color": "red"}]}


@pytest.mark.skipif(DETECTOR is None, reason=ABSENT)
@pytest.mark.parametrize("case", (DETECTOR or {"cases": []})["cases"], ids=lambda case: case["name"])
def test_golden_detections(case):
    golden = {
        key.removeprefix(f"{case['name']}."): value
        for key, value in tensors("images/geneval", "detector").items()
        if key.startswith(f"{case['name']}.")
    }
    sizes = (tuple(case[name]) for name in ("batch_input_shape", "img_shape", "ori_shape"))
    got = instances(golden["class_logits"], golden["mask_logits"], *sizes, most=case["max_per_image"])
    real = golden["scores"] > 0  # an empty mask has none, and such ties stand in any order
    assert got.labels[real].tolist() == golden["labels"][real].tolist()
    torch.testing.assert_close(got.scores, golden["scores"], atol=1e-5, rtol=0)
    assert torch.equal(got.boxes, golden["boxes"])
    assert torch.equal(got.masks[:4], golden["masks_of_the_best_4"].bool())


@pytest.mark.parametrize(
    ("size", "seen"),
    [((512, 512), (800, 800)), ((480, 640), (800, 1067)), ((100, 400), (333, 1333)), ((1, 4096), (1, 1333))],
)
def test_the_detector_sees_the_shorter_side_at_800_pixels_where_the_longer_one_allows_it(size, seen):
    assert seen_size(*size) == seen and seen_size(*size[::-1]) == seen[::-1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("geneval")
    return tiny_graders.detector(root / "detector"), tiny_graders.clip(root / "clip")


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def options(folders, **more):
    return GenEvalOptions(detector=str(folders[0]), clip=str(folders[1]), device="cpu", **more)


def test_a_picture_is_graded_from_its_file_to_its_verdict(folders, picture, tmp_path):
    path = tmp_path / "0.png"
    picture.save(path)
    found = Detector(folders[0], "cpu")(picture)
    names = [str(label) for label in found.labels.tolist()]
    best = found.rows(names)[0]
    assert len(best) == 6 and found.masks.shape == (100, 8, 80) and found.scores[0] > 0.3
    task = GenEval(options(folders))
    file = tmp_path / "prompts.jsonl"
    from mdm_geneval.metadata import CLASSES

    sure, absent = CLASSES[int(found.labels[0])], "toaster"
    color = ColorReader(folders[1], "cpu")(picture, sure, [(found.boxes[0].tolist(), found.masks[0].numpy())])[0]
    other = next(name for name in COLORS if name != color)
    includes = [[{"class": sure, "count": 1, "color": c}] for c in (color, other)] + [[{"class": absent, "count": 1}]]
    file.write_text("".join(json.dumps({**DOG, "include": include}) + "\n" for include in includes))
    try:
        futures = [task.grade_image(example, path) for example in task.examples(seed=0, data=file)]
        assert [future.result(timeout=60) for future in futures] == [{"accuracy": 1}, {"accuracy": 0}, {"accuracy": 0}]
        with pytest.raises(MdmError, match="there is no such picture"):
            task.grade_image(next(task.examples(seed=0, data=file)), tmp_path / "1.png").result(timeout=60)
    finally:
        task.close()


def test_a_color_is_that_of_the_object_alone(folders, picture):
    """What lies around an object does not change what CLIP is given of it, however long and narrow it is."""
    reader = ColorReader(folders[1], "cpu")
    mask = np.zeros((8, 80), bool)
    mask[5:7, 3:38] = True
    pixels = np.asarray(picture).copy()
    pixels[~mask] = 7
    crops = [reader._crop(of, [3, 5, 38, 7], mask) for of in (picture, Image.fromarray(pixels))]
    assert np.array_equal(*map(np.asarray, crops)) and crops[0].size == (32, 32)
    whole = picture.crop((3, 5, 38, 7)).resize((560, 32), Image.Resampling.BICUBIC).crop((264, 0, 296, 32))
    full = np.ones((8, 80), bool)
    assert np.abs(np.asarray(whole, int) - np.asarray(reader._crop(picture, [3, 5, 38, 7], full), int)).max() <= 1


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg")
    Image.new("L", (5000, 2)).save(tmp_path / "c.png")
    Image.new("LA", (3, 2)).save(tmp_path / "d.png")
    for name, said in (("a.png", "no PNG picture"), ("b.jpg", "no PNG picture"), ("c.png", "5000 x 2 pixels")):
        with pytest.raises(MdmError, match=said) as error:
            read_picture(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    assert read_picture(tmp_path / "d.png").mode == "RGB"


def test_checkpoints_that_cannot_be_used_are_refused_before_anything_is_decoded(folders, tmp_path):
    detector, clip = folders
    few = tiny_graders.detector(tmp_path / "few", labels=3)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((detector / "config.json").read_text())
    (pickled / "pytorch_model.bin").touch()
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "config.json").write_text((clip / "config.json").read_text())
    (lacking / "model.safetensors").write_bytes((detector / "model.safetensors").read_bytes())
    for first, second, said in (
        (tmp_path / "none", clip, "-o detector=.*there is no such folder"),
        (clip, clip, "-o detector=.*it is a 'clip' checkpoint, and a 'mask2former' one is needed"),
        (few, clip, "knows 3 classes"),
        (pickled, clip, "pytorch_model.bin, a pickle"),
        (detector, lacking, "the checkpoint has no weight"),
        ("nobody/has-this", clip, "-o detector=nobody/has-this: the hub did not give it"),
    ):
        with pytest.raises(MdmError, match=said) as error:
            GenEval(options((first, second)))
        assert "geneval.grading=later" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(MdmError, match="device 'tpu' is unknown"):
        GenEval(GenEvalOptions(detector=str(detector), clip=str(clip), device="tpu"))


def test_what_is_not_sure_is_not_asked_for_its_color(folders, picture):
    found = Detector(folders[0], "cpu")(picture)
    rows = found.rows(["dog"] * 100)
    strict = objects_that_count(GenEvalOptions(threshold=1), "colors", rows)
    loose = objects_that_count(GenEvalOptions(threshold=0, max_objects=50), "colors", rows)
    assert strict == {} and len(loose["dog"]) == 50
