"""The models of the documentation's pictures: one who knows them recognises them."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

import tracer
from tracer.records.diagram import Diagram, Region, Role
from tracer.transforms import diagram

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


OWN = runpy.run_path(str(PICTURES / "draw.py"))
traced: Callable[[str], tracer.Trace] = functools.cache(OWN["traced"])


def drawn(name: str) -> Diagram:
    """The picture of a model's last backward pass."""
    trace = traced(name)
    return diagram(trace.record, trace.passes[-1].id)


def frames(regions: tuple[Region, ...], indent: str = "") -> list[str]:
    """The frames of a picture, each with how often it stands."""
    lines = []
    for region in regions:
        repeat = f" ×{region.repeat}" if region.repeat > 1 else ""
        lines.append(f"{indent}{region.title} {region.detail}".rstrip() + repeat)
        lines += frames(region.regions, f"{indent}. ")
    return lines


def titles(picture: Diagram, word: str = "") -> list[str]:
    found = [box.lines[0].text for box in picture.boxes if box.role is not Role.SEED]
    return [title for title in found if word in title]


def test_gpt2_is_twelve_blocks_of_attention_and_mlp() -> None:
    picture = drawn("gpt2")
    assert frames(picture.regions) == [
        "model GPT2", ". h.0–11 Block ×12", ". . mlp MLP", ". . attn Attention"
    ]  # fmt: skip
    assert titles(picture, "Linear") == [
        "lm_head · Linear", "c_proj · Linear", "c_fc · Linear", "c_proj · Linear", "c_attn · Linear"
    ]  # fmt: skip
    assert titles(picture, "LayerNorm") == [
        "ln_f · LayerNorm", "ln_2 · LayerNorm", "ln_1 · LayerNorm"
    ]  # fmt: skip
    assert "model.wte.weight" in titles(picture)  # the embedding and the head share it


def test_resnet50_is_four_stages_of_3_4_6_and_3_bottlenecks() -> None:
    picture = drawn("resnet50")
    stages = [title for title in frames(picture.regions) if "layer" in title]
    assert stages == [f". layer{number} Sequential" for number in (4, 3, 2, 1)]
    folded = [(box.lines[0].text, box.repeat) for box in picture.boxes if box.role is Role.FOLDED]
    assert folded == [
        ("1–2", 2), ("0", 1), ("0", 1), ("1–3", 3), ("0", 1), ("1–2", 2), ("0", 1)
    ]  # fmt: skip
    assert any("1–5 Bottleneck ×5" in frame for frame in frames(picture.regions))


def test_llama_is_24_layers_with_rotary_attention_and_a_gated_mlp() -> None:
    picture = drawn("llama")
    assert frames(picture.regions)[0] == "model Llama"
    assert any("layers.0–23 LlamaDecoderLayer ×24" in frame for frame in frames(picture.regions))
    assert titles(picture, "_proj · Linear") == [
        f"{name}_proj · Linear" for name in ("down", "up", "gate", "o", "v", "k", "q")
    ]
    assert len(picture.boxes) <= 65


def test_an_lstm_is_one_cell_called_500_times() -> None:
    picture = drawn("lstm")
    assert frames(picture.regions) == ["cell LSTMCell", ". calls ×500"]
    kinds = [title.partition(" · ")[0] for title in titles(picture, "cell(x, (h, c))")]
    assert "h, c = cell(x, (h, c))" in kinds  # all 500 of it: at no turn of the loop
    assert [kinds.count(kind) for kind in ("Sigmoid", "Tanh", "Addmm")] == [3, 2, 2]


def test_a_gan_step_goes_through_the_discriminator_to_the_generator() -> None:
    picture = drawn("gan")
    assert frames(picture.regions) == ["discriminator Sequential", "generator Sequential"]
    assert titles(picture, "Linear") == ["2 · Linear", "0 · Linear", "2 · Linear", "0 · Linear"]
    kept = [box for box in picture.boxes if any("not zeroed" in x.text for x in box.lines)]
    assert len(kept) == 2  # the discriminator's .grad still holds what its own step left


@pytest.mark.parametrize("name", OWN["DRAWN"])
def test_the_documentation_has_the_picture(name: str) -> None:
    data = (OWN["IMAGES"] / f"{name}.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    shown = json.loads((OWN["IMAGES"] / OWN["DIGESTS"]).read_text("utf-8"))
    stale = f"no longer true: python docs/pictures/draw.py {name}, and look at it"
    assert shown[name] == OWN["digest_of"](traced(name)), stale
