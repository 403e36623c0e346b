"""MAGVIT-v2: what the published code encoded and decoded on tiny weights, its tensor names, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import mdm
import pytest
import torch
from goldens import ABSENT, cases, facts, folder, tensors
from mdm_mmada import load_picture_tokenizer
from mdm_mmada.magvit import Magvit
from mdm_mmada.magvit_config import magvit_config
from mdm_mmada.magvit_weights import check_header
from mdm_mmada.picture_tokenizer import to_pixel_values, to_uint8
from mdm_mmada.pictures import fit_picture
from safetensors.torch import load_file, save_file

GOLDENS = "images/magvit"
CHECKPOINT = folder(GOLDENS) / "checkpoint"
PUBLISHED = {"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}
TINY = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": [1, 1], "z_channels": 4}
CONFIG = {**PUBLISHED, "codebook_dim": 4, "encoder": TINY, "decoder": {**TINY, "ch_mult": [1, 1]}}


def golden(kind):
    """The golden cases of a kind, as parameters."""
    return [case for case in cases(GOLDENS, "cases") if case.values[0] is None or case.values[0]["kind"] == kind]


@pytest.fixture(scope="module")
def expected():
    return tensors(GOLDENS, "cases")


@pytest.fixture(scope="module")
def published():
    if not CHECKPOINT.is_dir():
        pytest.skip(ABSENT)
    return load_picture_tokenizer(CHECKPOINT, device="cpu")


def weights(config=CONFIG):
    """Seeded weights of a network under the published names."""
    network = Magvit(magvit_config(config, "config.json"))
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator) * 0.2
        for name, value in network.state_dict().items()
        if not name.startswith("quantize")
    }
    bits = [[(code >> bit & 1) * 2 - 1 for bit in (3, 2, 1, 0)] for code in range(16)]
    return state | {"quantize.embedding": torch.tensor(bits).float(), "quantize.power_vals": torch.tensor([8, 4, 2, 1])}


def save(path, state=None, config=CONFIG, name="model.safetensors"):
    path.joinpath("config.json").write_text(json.dumps(config))
    save_file(weights() if state is None else state, path / name)
    return path


@pytest.fixture
def tokenizer(tmp_path):
    return load_picture_tokenizer(save(tmp_path), device="cpu")


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def pixels_agree(found, raw, wanted):
    """Equal, but by one where the decoder's number is within 1e-3 of an integer."""
    exact = ((raw.double() + 1) / 2).clamp(0, 1).mul(255).permute(0, 2, 3, 1)
    apart = (found.int() - wanted.int()).abs()
    assert apart.max() <= 1
    assert ((exact - exact.round()).abs()[apart > 0] < 1e-3).all()


@pytest.mark.parametrize("case", golden("roundtrip"))
def test_pictures_are_encoded_and_decoded_as_published(case, published, expected):
    pictures, name = expected[f"{case['name']}.image_uint8"], case["name"]
    values = to_pixel_values(pictures)
    torch.testing.assert_close(values, expected[f"{name}.pixel_values"], atol=1e-6, rtol=0)
    with torch.no_grad():
        latent = published.network.encoder(values)
        decoded = published.network.decode(expected[f"{name}.codes"], tuple(case["latent_grid"]))
    torch.testing.assert_close(latent, expected[f"{name}.latent"], atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded, expected[f"{name}.decoded"], atol=1e-4, rtol=0)
    codes = published.encode(pictures)
    assert torch.equal(codes, expected[f"{name}.codes"])
    found = published.decode(codes, grid=tuple(case["latent_grid"]))
    pixels_agree(found, expected[f"{name}.decoded"], expected[f"{name}.decoded_uint8"])


@pytest.mark.parametrize("case", golden("decode"))
def test_codes_are_decoded_as_published(case, published, expected):
    name, codes = case["name"], expected[f"{case['name']}.codes"]
    grid = case["shape_argument"] and tuple(case["shape_argument"])
    latent = expected[f"{name}.quantized"]
    assert torch.equal(published.network.quantize.latent(codes, tuple(latent.shape[2:])), latent)
    assert torch.equal(published.network.quantize.codes(latent), codes)
    pixels_agree(published.decode(codes, grid), expected[f"{name}.decoded"], expected[f"{name}.decoded_uint8"])


@pytest.mark.parametrize("case", golden("transform"))
def test_pictures_are_resized_and_cropped_as_published(case, published, expected):
    name = case["name"]
    picture = fit_picture(expected[f"{name}.image_uint8"].numpy(), case["resolution"], squash=case["squash"])
    values = to_pixel_values(torch.from_numpy(picture)[None])[0]
    torch.testing.assert_close(values, expected[f"{name}.pixel_values"], atol=1e-6, rtol=0)
    if case["min_abs_latent"] > 1e-3:
        assert torch.equal(published.encode(picture[None]), expected[f"{name}.codes"])


def test_the_codes_of_whole_runs_are_decoded_to_the_published_pixels(published):
    runs = tensors("images/mmada", "images_end_to_end")
    for name in {key.rpartition(".")[0] for key in runs}:
        found = published.decode(runs[f"{name}.codes"])
        apart = (found.int() - runs[f"{name}.uint8"].int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01


def test_the_published_config_and_names_are_the_full_network():
    keys = facts(GOLDENS, "published_keys")
    if keys is None:
        pytest.skip(ABSENT)
    config = magvit_config(PUBLISHED, "config.json")
    with torch.device("meta"):
        network = Magvit(config)
    state = network.state_dict()
    found = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()}
    assert found == keys["tensors"] and len(found) == 382
    assert sum(value.numel() for value in network.parameters()) == keys["parameters"]
    assert (config.bits, config.down_factor) == (13, 16)
    latent = network.encoder(torch.empty(1, 3, 512, 256, device="meta"))
    assert latent.shape == (1, 13, 32, 16)
    assert network.decoder(latent).shape == (1, 3, 512, 256)


def test_each_of_the_published_tensors_is_needed_in_its_shape(tmp_path):
    with torch.device("meta"):
        expected = Magvit(magvit_config(PUBLISHED, "config.json")).state_dict()
    header = {
        name: (tuple(value.shape), "F32" if value.is_floating_point() else "I64") for name, value in expected.items()
    }
    check_header(header, expected, tmp_path)
    for name, (shape, kind) in header.items():
        with pytest.raises(mdm.MdmError, match=f"lacks tensor {name}:"):
            check_header({k: v for k, v in header.items() if k != name}, expected, tmp_path)
        with pytest.raises(mdm.MdmError, match=f"tensor {name} has the shape"):
            check_header({**header, name: ((*shape, 2), kind)}, expected, tmp_path)
        with pytest.raises(mdm.MdmError, match=f"surplus tensor {name}x:"):
            check_header({**header, f"{name}x": (shape, kind)}, expected, tmp_path)


def test_sizes_and_types_are_told(tokenizer):
    assert (tokenizer.codebook_size, tokenizer.down_factor) == (16, 2)
    assert (tokenizer.dtype, tokenizer.device) == (torch.float32, torch.device("cpu"))


def test_the_package_is_imported_without_torch():
    code = "import sys, mdm_mmada; assert not {'torch', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_picture_is_the_same_beside_any_others(tokenizer):
    pictures = noise(5, 8, 12, 3)
    codes = tokenizer.encode(pictures)
    assert codes.shape == (5, 24) and codes.dtype == torch.int64 and len(codes.unique()) > 4
    decoded = tokenizer.decode(codes, (4, 6))
    assert decoded.shape == pictures.shape and decoded.dtype == torch.uint8
    for row in range(5):
        assert torch.equal(tokenizer.encode(pictures[row : row + 1])[0], codes[row])
        assert torch.equal(tokenizer.decode(codes[row : row + 1], (4, 6))[0], decoded[row])
    assert torch.equal(tokenizer.decode(codes.flip(0), (4, 6)), decoded.flip(0))


def test_arrays_and_lists_are_taken_and_nothing_of_a_caller_is_changed(tokenizer):
    pictures = noise(1, 8, 8, 3)
    array = pictures.numpy().copy()
    array.flags.writeable = False
    codes = tokenizer.encode(array)
    assert torch.equal(codes, tokenizer.encode(pictures)) and torch.equal(pictures, noise(1, 8, 8, 3))
    assert torch.equal(tokenizer.encode(array[:, ::-1]), tokenizer.encode(pictures.flip(1)))
    wanted = tokenizer.decode(codes)
    for same in (codes.numpy(), codes.numpy().astype("uint16"), codes.tolist(), codes.to(torch.uint8), codes.int()):
        assert torch.equal(tokenizer.decode(same), wanted)


def test_a_grid_is_rows_and_columns(tokenizer):
    codes = torch.arange(8)[None]
    assert tokenizer.decode(codes, grid=(2, 4)).shape == (1, 4, 8, 3)
    assert tokenizer.decode(codes, grid=(4, 2)).shape == (1, 8, 4, 3)
    assert tokenizer.decode(codes.repeat(1, 2)).shape == (1, 8, 8, 3)


def test_no_pictures_have_no_codes(tokenizer):
    assert tokenizer.encode(noise(0, 8, 8, 3)).shape == (0, 16)
    assert tokenizer.decode(torch.empty(0, 16, dtype=torch.int64)).shape == (0, 8, 8, 3)


def test_pixels_are_cut_and_rounded_down():
    values = torch.tensor([-3.0, -1.0, 0.0, 0.99, 1.0, 9.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 127, 253, 255, 255]


def test_a_zero_is_a_bit_that_is_off(tokenizer):
    latent = torch.tensor([0.0, 1.0, -1.0, 1e-9]).view(1, 4, 1, 1)
    assert tokenizer.network.quantize.codes(latent).tolist() == [[0b0101]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_are_computed_in(tmp_path, dtype):
    tokenizer = load_picture_tokenizer(save(tmp_path), device="cpu", dtype=dtype)
    assert tokenizer.dtype == getattr(torch, dtype)
    assert tokenizer.decode(tokenizer.encode(noise(1, 8, 8, 3))).shape == (1, 8, 8, 3)


def test_weights_may_be_of_another_float_type_and_the_published_file_name(tmp_path):
    state = {k: v.double() if v.is_floating_point() else v for k, v in weights().items()}
    found = load_picture_tokenizer(
        save(tmp_path, state, name="pytorch_model.safetensors"), device="cpu", dtype="float32"
    )
    assert found.dtype == torch.float32 and found.network.quantize.embedding.dtype == torch.float32


@pytest.mark.parametrize(
    ("pictures", "line"),
    [
        (noise(1, 8, 8, 3).float(), r"uint8 of the shape \[B, H, W, 3\], and these are float32"),
        (noise(8, 8, 3), r"of the shape \[8, 8, 3\]"),
        (noise(1, 3, 8, 8), r"of the shape \[1, 3, 8, 8\]"),
        (noise(1, 8, 8, 4), r"of the shape \[1, 8, 8, 4\]"),
        (noise(1, 7, 8, 3), r"of 7 x 8 pixels \(height x width\) .* multiples of 2"),
        (noise(1, 0, 8, 3), "of 0 x 8 pixels"),
        ("picture.png", "are no tensor"),
    ],
)
def test_what_is_no_picture_is_refused(tokenizer, pictures, line):
    with pytest.raises(mdm.MdmError, match=line):
        tokenizer.encode(pictures)


@pytest.mark.parametrize(
    ("codes", "grid", "line"),
    [
        ([[0, 1, 2, 16]], None, "16 is no picture code: they go from 0 to 15"),
        ([[0, -1, 2, 3]], None, "-1 is no picture code"),
        ([[0, 1, 2]], None, "3 codes do not fill a square"),
        ([[0, 1, 2, 3]], (1, 3), "a grid of 1 x 3 does not hold the 4 codes"),
        ([[0, 1, 2, 3]], (-2, -2), "a grid of -2 x -2"),
        ([[0, 1, 2, 3]], (1, 2, 2), r"grid=\(1, 2, 2\) is no pair"),
        ([[0, 1, 2, 3]], 2, "grid=2 is no pair"),
        ([[0, 1, 2, 3]], (2.0, 2.0), "is no pair of whole numbers"),
        ([0, 1, 2, 3], None, r"of the shape \[4\]"),
        ([[]], None, r"of the shape \[1, 0\]"),
        ([[0.0, 1.0, 2.0, 3.0]], None, "these are float64"),
        ([[True, False, True, True]], None, "these are bool"),
        ([[0, 1], [2]], None, "are no tensor"),
    ],
)
def test_what_are_no_codes_is_refused(tokenizer, codes, grid, line):
    with pytest.raises(mdm.MdmError, match=line):
        tokenizer.decode(codes, grid)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    state = weights() | {"decoder.conv_out.bias": torch.tensor([0.0, float("inf"), 0.0])}
    tokenizer = load_picture_tokenizer(save(tmp_path, state), device="cpu")
    with pytest.raises(mdm.MdmError, match="cannot be decoded in float32: numbers that are not finite"):
        tokenizer.decode([[0, 1, 2, 3]])


def broken(**changes):
    """The tiny weights with some replaced; None takes one away."""
    return {k: v for k, v in (weights() | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"decoder.up.0.block.0.norm1.bias": None}, r"lacks tensor decoder\.up\.0\.block\.0\.norm1\.bias: it does not"),
        ({"quantize.power_vals": None}, r"lacks tensor quantize\.power_vals"),
        ({"encoder.down.1.downsample.conv.bias": torch.zeros(64)}, "a surplus tensor encoder.down.1.downsample"),
        ({"encoder.conv_in.bias": torch.zeros(33)}, "tensor encoder.conv_in.bias has the shape 33 instead of 32"),
        ({"encoder.conv_in.bias": torch.zeros(32).int()}, "tensor encoder.conv_in.bias is of type I32"),
        ({"quantize.power_vals": torch.ones(4)}, "tensor quantize.power_vals is of type F32"),
        ({"quantize.power_vals": torch.tensor([1, 2, 4, 8])}, "the codebook .* does not hold the signs of 4 bits"),
        ({"quantize.embedding": torch.ones(16, 4)}, "the codebook .* does not hold the signs of 4 bits"),
        ({"quantize.embedding": torch.ones(32, 4)}, "quantize.embedding has the shape 32 x 4 instead of 16 x 4"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, changes, line):
    with pytest.raises(mdm.MdmError, match=line):
        load_picture_tokenizer(save(tmp_path, broken(**changes)), device="cpu")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"_class_name": "VQModel"}, "is of a 'VQModel' model and not of a picture tokenizer"),
        ({"_class_name": None, "model_type": "llada"}, "is of a 'llada' model"),
        ({"codebook_dims": 4}, "codebook_dims: there is no such name. Did you mean 'codebook_dim'"),
        ({"encoder": {**TINY, "chs": 32}}, r"encoder\.chs: there is no such name. Did you mean 'ch'"),
        ({"decoder": {**TINY, "ch": 40}}, r"decoder\.ch=40: should be a multiple of 32"),
        ({"encoder": {**TINY, "ch": "32"}}, r"encoder\.ch=32: should be a valid integer"),
        ({"encoder": {**TINY, "double_z": True}}, r"encoder\.double_z=True"),
        ({"encoder": {**TINY, "in_ch": 1}}, r"encoder\.in_ch=1"),
        ({"encoder": {**TINY, "num_res_blocks": [1]}}, "encoder: ch_mult has 2 levels and num_res_blocks has 1"),
        ({"encoder": {**TINY, "num_res_blocks": [1, 0]}}, r"encoder\.num_res_blocks"),
        ({"encoder": {**TINY, "attn_resolutions": [128]}}, "encoder: attn_resolutions asks for attention at width 128"),
        ({"encoder": [1]}, r"encoder=\[1\]: should be a valid dictionary"),
        ({"codebook_dim": 5}, r"encoder\.z_channels=4 does not fit codebook_dim=5"),
        ({"decoder": {**TINY, "z_channels": 3}}, r"decoder\.z_channels=3 does not fit codebook_dim=4"),
        (
            {"decoder": {**TINY, "ch_mult": [1, 1, 1], "num_res_blocks": [1, 1, 1]}},
            "encoder.ch_mult has 2 levels and decoder.ch_mult has 3",
        ),
        ({"codebook_dim": 60}, "codebook_dim=60: should be less than or equal to 18"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused_by_name(tmp_path, changes, line):
    with pytest.raises(mdm.MdmError, match=line) as refused:
        load_picture_tokenizer(save(tmp_path, config=CONFIG | changes), device="cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt"])
def test_pickles_are_refused_by_name(tmp_path, name):
    path = save(tmp_path)
    (path / "model.safetensors").rename(path / name)
    with pytest.raises(mdm.MdmError, match=f"has its weights in {name}, a pickle: convert"):
        load_picture_tokenizer(path, device="cpu")
    (path / "pytorch_model.bin").touch()
    with pytest.raises(mdm.MdmError, match=r"pytorch_model\.bin is a pickle"):
        load_picture_tokenizer(path / "pytorch_model.bin", device="cpu")


def test_folders_and_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = save(tmp_path)
    with pytest.raises(mdm.MdmError, match="is a file: give the folder"):
        load_picture_tokenizer(path / "model.safetensors", device="cpu")
    with pytest.raises(mdm.MdmError, match="no such folder"):
        load_picture_tokenizer(tmp_path / "nowhere", device="cpu")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(mdm.MdmError, match="is damaged or incomplete"):
        load_picture_tokenizer(path, device="cpu")
    (path / "model.safetensors").unlink()
    with pytest.raises(mdm.MdmError, match="holds neither model.safetensors nor pytorch_model.safetensors"):
        load_picture_tokenizer(path, device="cpu")
    (path / "config.json").unlink()
    with pytest.raises(mdm.MdmError, match="has no config.json"):
        load_picture_tokenizer(path, device="cpu")


@pytest.mark.parametrize(("option", "line"), [({"device": "tpu"}, "device 'tpu'"), ({"dtype": "int8"}, "dtype 'int8'")])
def test_devices_and_types_are_checked(tmp_path, option, line):
    with pytest.raises(mdm.MdmError, match=line):
        load_picture_tokenizer(save(tmp_path), **{"device": "cpu", **option})


def test_the_golden_checkpoint_is_needed_whole(tmp_path):
    if not CHECKPOINT.is_dir():
        pytest.skip(ABSENT)
    state = load_file(CHECKPOINT / "model.safetensors")
    del state["encoder.quant_conv.bias"]
    config = json.loads((CHECKPOINT / "config.json").read_text())
    with pytest.raises(mdm.MdmError, match=r"lacks tensor encoder\.quant_conv\.bias"):
        load_picture_tokenizer(save(tmp_path, state, config), device="cpu")
