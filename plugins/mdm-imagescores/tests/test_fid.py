"""The Inception network and its weights, ``mdm fid`` and ``mdm fid-reference``."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import picture_runs
import pytest
import torch
from click.testing import CliRunner
from goldens import cases, facts, tensors
from mdm.cli import cli
from mdm.errors import MdmError, MdmWarning
from mdm_imagescores import inception_weights
from mdm_imagescores.inception import SIZE, Features, Inception, resize
from mdm_imagescores.inception_weights import load_inception
from mdm_imagescores.pictures import picture_sets, read_picture
from mdm_imagescores.statistics import Gaussian, frechet_distance, inception_score
from PIL import Image
from safetensors.torch import save_file

GOLDENS = "images/fid"
pytestmark = pytest.mark.filterwarnings("ignore:.*no more than a feature has dimensions:mdm.errors.MdmWarning")


def seeded():
    """Weights by the formula of the goldens: of the i-th name in order a generator of seed 1000 + i."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Inception().state_dict().items()}
    state = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1000 + i))
        if name.endswith("conv.weight"):
            x *= 1.6 / x[0].numel() ** 0.5
        elif name.endswith("num_batches_tracked"):
            x = torch.zeros((), dtype=torch.int64)
        elif name.endswith(("bn.weight", "running_var")):
            x = 1 + 0.1 * (x.abs() if name.endswith("running_var") else x)
        else:
            x *= 0.05 if name == "fc.weight" else 0.1
        state[name] = x
    return state


@pytest.fixture(scope="module")
def state():
    return seeded()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return load_inception(weights, "cpu")


def pictures(count, height, width, first=0):
    """Pictures ``[N, H, W, 3]`` by the formula of the goldens."""
    k, y, x, c = np.ogrid[first : first + count, :height, :width, :3]
    return np.abs((3 * y + 5 * x + 40 * c + x * y // 7 + 90 * k) % 510 - 255).astype(np.uint8)


def save(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}")
    return folder


def run(*arguments):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(message, *arguments):
    with pytest.raises(MdmError, match=message) as caught:
        cli.main([str(argument) for argument in arguments], standalone_mode=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", cases(GOLDENS, "inception"))
def test_the_features_of_the_published_network(case, network):
    expected = tensors(GOLDENS, "inception")
    count, _, height, width = case["images"]
    batch = [resize(torch.from_numpy(p).permute(2, 0, 1).float()) for p in pictures(count, height, width)]
    for name, found in zip(("2048", "spatial", "logits_unbiased"), network(torch.stack(batch)), strict=True):
        wanted = expected[f"inception_{case['name']}.{name}"]
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max(), name


def test_the_names_and_shapes_of_the_published_weights(state):
    published = facts(GOLDENS, "inception")
    if published is None:
        pytest.skip("the goldens are not on this machine")
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published["keys"]


def test_a_picture_is_resized_as_tensorflow_1_did():
    row = torch.tensor([0.0, 10.0]).expand(3, 4, 2)
    wide = resize(row)
    assert wide.shape == (3, SIZE, SIZE)
    # Pixel i looks at i * 2 / 299, and right of the last one there is only the last one.
    torch.testing.assert_close(wide[0, 0, :150], torch.arange(150) * (2 / SIZE) * 10, rtol=0, atol=1e-4)
    assert (wide[..., 150:] == 10).all()
    same = torch.rand(3, SIZE, SIZE)
    assert torch.equal(resize(same), same)


def test_counters_of_training_may_be_absent(state, tmp_path):
    few = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(few, tmp_path / "few.safetensors")
    assert load_inception(tmp_path / "few.safetensors", "cpu").fc.weight.shape == (1008, 2048)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), "lacks tensor fc.bias: it is not the Inception of 2015-12-05"),
        (lambda s: s.update({"AuxLogits.fc.bias": torch.zeros(2)}), "holds a surplus tensor AuxLogits.fc.bias"),
        (
            lambda s: s.update({"fc.weight": torch.zeros(1000, 2048)}),
            r"fc.weight has the shape \[1000, 2048\] instead of \[1008, 2048\]",
        ),
        (lambda s: s.update({"fc.bias": torch.zeros(1008, dtype=torch.int8)}), "fc.bias is of type I8"),
    ],
)
def test_other_weights_are_refused_by_name(change, message, state, tmp_path):
    # What is refused is refused by its header, so big tensors may as well be small ones.
    changed = dict(state)
    change(changed)
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(MdmError, match=message):
        load_inception(tmp_path / "other.safetensors", "cpu")


def test_what_is_no_safetensors_file_is_refused_with_the_way_out(tmp_path):
    for suffix, kind in (
        (".pth", "a pickle"),
        (".pt", "a pickle"),
        (".bin", "a pickle"),
        (".pb", "a TensorFlow graph"),
    ):
        (tmp_path / f"w{suffix}").write_bytes(pickle.dumps({}))
        with pytest.raises(MdmError, match=f"is {kind}.* README.md of mdm-imagescores has the five lines"):
            load_inception(tmp_path / f"w{suffix}", "cpu")
    (tmp_path / "w.safetensors").write_bytes(b"no such thing")
    with pytest.raises(MdmError, match="is no safetensors file, or a damaged one"):
        load_inception(tmp_path / "w.safetensors", "cpu")
    with pytest.raises(MdmError, match="there is no such file; README.md"):
        load_inception(tmp_path / "absent.safetensors", "cpu")


class Small(torch.nn.Module):
    """Features of the right shapes, seeded functions of a picture's means, at no cost."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.fc = torch.nn.Linear(2048, 1008)
        self.fc.weight.data = torch.randn(1008, 2048, generator=generator) / 500
        self.tables = [torch.randn(48, count, generator=generator) for count in (2048, 2023)]

    def forward(self, x):
        means = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) / 255
        pooled, spatial = (means @ table for table in self.tables)
        return Features(pooled, spatial, pooled @ self.fc.weight.T)


@pytest.fixture
def small(monkeypatch):
    """The commands with a network that costs nothing; the value stands for the file of its weights."""
    monkeypatch.setattr(inception_weights, "load_inception", lambda path, device: Small())
    return "small.safetensors"


def test_a_reference_by_the_whole_network(weights, tmp_path):
    ours = save(tmp_path / "ours", pictures(2, 32, 32))
    told = run("fid-reference", ours, "--out", tmp_path / "r.npz", "--inception", weights)
    assert told == f"written: {tmp_path / 'r.npz'}, of 2 pictures\n"
    with np.load(tmp_path / "r.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "mu": (2048,), "sigma": (2048, 2048), "mu_s": (2023,), "sigma_s": (2023, 2023),
        }  # fmt: skip


@pytest.mark.wide
def test_a_fid_by_the_whole_network(weights, network, tmp_path):
    ours, theirs = save(tmp_path / "ours", pictures(4, 32, 32)), save(tmp_path / "theirs", pictures(4, 32, 32, first=1))
    [record] = json.loads(run("fid", theirs, "--reference", ours, "--inception", weights, "--json"))
    batch = [resize(torch.from_numpy(p).permute(2, 0, 1).float()) for p in pictures(5, 32, 32)]
    by_hand = network(torch.stack(batch))
    one, other = (
        [Gaussian(x.mean(0), np.cov(x, rowvar=False)) for x in (part[rows].double().numpy() for part in by_hand[:2])]
        for rows in (slice(0, 4), slice(1, 5))
    )
    assert [record["fid"], record["sfid"]] == pytest.approx(list(map(frechet_distance, one, other)), rel=1e-4)
    assert record["inception_score"] == pytest.approx(inception_score(by_hand.logits[1:].numpy()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*examples have no picture:mdm.errors.MdmWarning")
def test_a_run_is_scored_variant_by_variant_and_is_its_own_reference(small, tmp_path):
    folder = picture_runs.make(tmp_path / "two", [*pictures(5, 32, 40), None], samplers=("one", "two"))
    with pytest.warns(MdmWarning) as warned:
        told = run("fid", folder, "--reference", folder / "one", "--inception", small, "--precision-recall", "--json")
    assert "two/one: 1 examples have no picture" in [str(warning.message) for warning in warned]
    first, second = json.loads(told)
    assert [first["label"], second["label"]] == ["two/one", "two/two"]
    assert {k: v for k, v in first.items() if k != "label"} == {k: v for k, v in second.items() if k != "label"}
    assert (first["pictures"], first["failed"], first["precision"], first["recall"]) == (5, 1, 1.0, 1.0)
    assert first["fid"] == pytest.approx(0, abs=1e-6) and first["sfid"] == pytest.approx(0, abs=1e-6)


def test_a_reference_of_one_s_own(small, tmp_path):
    ours = save(tmp_path / "ours", pictures(4, 32, 32))
    save(tmp_path / "a" / "b", pictures(4, 40, 24, first=7))
    save(tmp_path / "a" / "c", pictures(2, 8, 8), ".jpg")  # another size, another folder
    reference = tmp_path / "reference.npz"
    assert "of 6 pictures" in run("fid-reference", tmp_path / "a", "--out", reference, "--inception", small)
    command = ["fid", ours, "--inception", small, "--batch-size", 3]
    with pytest.warns(MdmWarning, match="ours holds 4 pictures, no more than a feature has dimensions"):
        [by_file] = json.loads(run(*command, "--reference", reference, "--json"))
    assert by_file["fid"] > 0 and "precision" not in by_file
    table = run(*command, "--reference", tmp_path / "a")  # the folder itself
    assert table.split()[:5] == ["run", "pictures", "FID", "sFID", "IS"]
    assert all(f"{by_file[name]:.2f}" in table for name in ("fid", "sfid", "inception_score"))

    # OpenAI's file: pictures beside the statistics, which count for precision and recall alone
    with np.load(reference) as arrays:
        np.savez(tmp_path / "openai.npz", arr_0=pictures(5, 32, 32), **{k: arrays[k] for k in ("mu", "sigma")})
    [record] = json.loads(run(*command, "--reference", tmp_path / "openai.npz", "--precision-recall", "--json"))
    # The fifth is nobody's double, and yet in the ball of one that is.
    assert (record["precision"], record["recall"]) == (1.0, 1.0) and "sfid" not in record
    assert record["fid"] == pytest.approx(by_file["fid"], rel=1e-6)
    refused("holds no arr_0, but mu, mu_s, sigma, sigma_s", *command, "--reference", reference, "--precision-recall")


SIGMA = np.zeros((2048, 2048), np.float16)


def write_reference(path, **changes):
    arrays = {"mu": np.zeros(2048), "sigma": np.zeros(1)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": None}, "holds no mu: a reference has mu and sigma"),
        ({"mu_s": np.zeros(2023), "sigma": SIGMA}, "holds no sigma_s"),
        ({"mu": np.zeros(192)}, r"mu is float64 of the shape \[192\] instead of floats of \[2048\]"),
        ({"mu": np.zeros(2048, np.int64)}, "mu is int64"),
        ({"mu": np.array([{}] * 2048)}, "mu holds Python objects, which are not read"),
        ({"mu": np.full(2048, np.nan)}, "mu holds numbers that are not finite"),
        ({"sigma": np.tri(2048, dtype=np.float16)}, "sigma is no covariance: it is not symmetric"),
        (
            {"arr_0": np.zeros((2, 8, 8), np.uint8), "sigma": SIGMA},
            r"arr_0 is uint8 of the shape \[2, 8, 8\], and no pictures",
        ),
        ({"arr_0": np.zeros((2, 8, 8, 3)), "sigma": SIGMA}, "arr_0 is float64"),
    ],
)
def test_a_bad_reference_is_one_line(changes, message, tmp_path):
    ours = save(tmp_path / "ours", pictures(4, 8, 8))
    write_reference(tmp_path / "r.npz", **changes)
    flags = ["--precision-recall"] if "arr_0" in changes else []
    # It shows before the weights are looked for.
    refused(message, "fid", ours, "--reference", tmp_path / "r.npz", "--inception", tmp_path / "absent", *flags)


def test_a_reference_that_is_no_archive_or_is_cut_short(tmp_path):
    ours = save(tmp_path / "ours", pictures(4, 8, 8))
    command = ["fid", ours, "--inception", tmp_path / "absent", "--reference"]
    (tmp_path / "r.npz").write_bytes(pickle.dumps({"mu": 0}))
    refused("r.npz cannot be read as an .npz of statistics", *command, tmp_path / "r.npz")
    write_reference(tmp_path / "whole.npz")
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        cut.writestr("mu.npy", whole.read("mu.npy")[:-8])
        cut.writestr("sigma.npy", b"")
    refused("mu is cut short", *command, tmp_path / "cut.npz")


def test_too_few_pictures_and_none(weights, tmp_path):
    flags = ["--reference", tmp_path, "--inception", weights]
    (tmp_path / "none").mkdir()
    refused(r"none holds no pictures \(.png, .jpg, .jpeg\), and is not the folder", "fid", tmp_path / "none", *flags)
    one = save(tmp_path / "one", pictures(1, 8, 8))
    refused("one holds 1 picture: a FID needs 2 at least", "fid", one, *flags)
    texts = picture_runs.make(tmp_path / "texts", [None, None])
    refused("texts holds no pictures: its 2 results are texts or failed", "fid", texts, *flags)
    several = picture_runs.make(tmp_path / "several", pictures(2, 8, 8), samplers=("one", "two"))
    refused("is a run of 2 variants: name the folder of one", "fid", several, "--reference", several, *flags[2:])


def test_a_run_s_pictures_in_the_order_of_its_rows_and_all_of_them(tmp_path):
    folder = picture_runs.make(tmp_path / "run", pictures(3, 8, 8))
    [found] = picture_sets([folder])
    assert [path.name for path in found.paths] == ["0.png", "1.png", "2.png"] and found.label == "run"
    (folder / "images" / "1.png").unlink()
    with pytest.raises(MdmError, match="results.jsonl names images/1.png, and there is no such picture beside it"):
        picture_sets([folder])
    results = folder / "results.jsonl"
    for elsewhere in (str(folder / "images" / "0.png"), "../run/images/0.png"):
        results.write_text(results.read_text().replace("images/1.png", elsewhere))
        with pytest.raises(MdmError, match="line 2: not a result of a run .its image is another row's"):
            picture_sets([folder])
        results.write_text(results.read_text().replace(elsewhere, "images/1.png"))


def test_what_a_picture_may_be(tmp_path):
    rgb = pictures(1, 6, 9)[0]
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "rgb.png"), rgb)
    assert read_picture(tmp_path / "rgb.png", resize=5).shape == (5, 5, 3)
    opaque = Image.fromarray(rgb).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "opaque.png"), rgb)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png"), np.repeat(rgb[..., :1], 3, axis=2))
    opaque.putalpha(128)
    opaque.save(tmp_path / "clear.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    Image.fromarray(rgb).save(tmp_path / "film.png", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    Image.fromarray(np.zeros((1, 101, 3), np.uint8)).save(tmp_path / "thin.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:60])
    bad = {
        "clear": "has transparent parts",
        "deep": "has pixels of the kind I;16",
        "broken": "cannot be read as a picture",
        "film": "holds several pictures",
        "thin": "is 101 x 1 pixels, too long and thin",
    }
    for name, message in bad.items():
        with pytest.raises(MdmError, match=f"{name}.png {message}"):
            read_picture(tmp_path / f"{name}.png")
