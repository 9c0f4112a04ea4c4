"""A model runs as its manifest says, or it is refused in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, RuntimeLoadError, ShapeError
from tinysight_edge.belt import Belt
from tinysight_edge.decode import make_decoder
from tinysight_edge.interpreter import Model, find_runtime, self_test
from tinysight_edge.preprocess import Preprocessor


def test_the_golden_bundle_passes_its_self_test_and_finds_the_parcels(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    model = Model.load(bundle)
    assert self_test(bundle, model) is None
    prepare, decode = (
        Preprocessor(bundle.manifest.input, model.variant.input),
        make_decoder(bundle.manifest, model.variant),
    )
    right = total = 0
    for seed in range(20):
        image, shown = Belt(seed).frame(200)
        tensor, fit = prepare(image)
        found = decode(model.run(tensor)).in_frame(fit)
        for truth in shown:
            if truth.clear:
                total += 1
                near = np.abs(found.boxes_px - np.array(truth.box_px, np.float32)).max(1) < 12
                right += bool((near & (found.class_ids == truth.label)).any())
    assert right >= 0.8 * total > 0


def test_outputs_stay_valid_after_the_next_run(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    model = Model.load(bundle)
    first = model.run(np.zeros(model.variant.input.shape, np.uint8))
    kept = {name: value.copy() for name, value in first.items()}
    model.run(np.full(model.variant.input.shape, 255, np.uint8))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_a_picture_put_into_the_lent_input_gives_the_same_as_a_tensor(belt_bundle: Path) -> None:
    model = Model.load(Bundle.open(belt_bundle))
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 256, model.variant.input.shape).astype(np.uint8)
        want = model.run(picture)
        model.lend_input()[:] = picture
        lent = model.run_lent()
        assert all(np.array_equal(lent[name], want[name]) for name in want)
        assert not any(array.flags.owndata for array in lent.values()), "no copy was made"
        del lent


@pytest.mark.parametrize(("shape", "dtype"), [((1, 96, 128, 3), "float32"), ((96, 128, 3), "uint8"), ((1,), "uint8")])
def test_a_tensor_of_another_form_is_refused(shape: tuple[int, ...], dtype: str, belt_bundle: Path) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        Model.load(Bundle.open(belt_bundle)).run(np.zeros(shape, dtype))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 1000])
def test_what_is_no_model_is_refused_in_one_line(content: bytes, belt_bundle: Path) -> None:
    variant = Bundle.open(belt_bundle).manifest.variants[0]
    with pytest.raises(RuntimeLoadError, match=r"cannot load int8\.tflite") as refused:
        Model(content, variant)
    assert "\n" not in str(refused.value)


def test_a_manifest_that_does_not_fit_the_file_is_refused(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    variant = bundle.manifest.variants[0]
    content = bundle.read(variant.file)
    for wrong in (
        replace(variant, input=replace(variant.input, name="picture")),
        replace(variant, input=replace(variant.input, scale=1 / 255)),
        replace(variant, outputs=[replace(variant.outputs[0], zero_point=3), variant.outputs[1]]),
        replace(variant, outputs=[replace(variant.outputs[0], shape=[1, 1, 1, 4]), variant.outputs[1]]),
    ):
        with pytest.raises(BundleError):
            Model(content, wrong)


def test_a_file_without_a_signature_is_read_by_the_names_of_its_tensors(belt_bundle: Path) -> None:
    bundle = Bundle.open(belt_bundle)
    signed = bundle.manifest.variants[0]
    content = bundle.read(signed.file)
    plain = find_runtime().interpreter(model_content=content)
    (given,), answers = plain.get_input_details(), plain.get_output_details()
    own_name = {output.name: each["name"] for output in signed.outputs for each in answers
                if list(each["shape"]) == output.shape}  # fmt: skip
    assert set(own_name) == {"heatmap", "box"}
    outputs = [replace(output, name=own_name[output.name]) for output in signed.outputs]
    variant = replace(signed, input=replace(signed.input, name=given["name"]), outputs=outputs, named_by="tensor")
    picture = np.random.default_rng(0).integers(0, 256, signed.input.shape).astype(np.uint8)
    by_signature, by_tensor = Model(content, signed).run(picture), Model(content, variant).run(picture)
    assert all(np.array_equal(by_signature[name], by_tensor[own_name[name]]) for name in by_signature)
    with pytest.raises(BundleError, match="has no tensor 'box'"):
        Model(content, replace(variant, outputs=signed.outputs))


def test_a_variant_that_is_not_there_is_named(belt_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no variant 'float16'"):
        Model.load(Bundle.open(belt_bundle), scheme="float16")


def test_without_any_runtime_it_is_said_how_to_install_one() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(('ai_edge_litert', 'tflite_runtime')))"
    find = "from tinysight_edge.interpreter import find_runtime\ntry: find_runtime()\nexcept Exception as e: print(e)"
    code = f"{block}\n{find}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tinysight[edge]" in done.stdout


def test_the_runtime_here_has_a_name_and_a_version() -> None:
    runtime = find_runtime()
    assert runtime.name in {"litert", "tflite-runtime"}
    assert runtime.version[0].isdigit()
