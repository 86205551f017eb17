"""Caption losses against references that are written out in plain loops and computed in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from detector.captions import heads as module
from detector.captions.connectors import Connector, grid_boxes, level_map, sine_code
from detector.captions.heads import CaptionHeads
from detector.captions.scripts import Piece
from detector.model import Features
from detector.words import Words
from llmdet.errors import FormatError, MissingError, SettingError
from tests.detector.captions.example_llm import SHAPES, WORDS, config, features, heads, match, settings, shake


def coded(numbers: list[float], dims: int) -> list[float]:
    """Sines and cosines of numbers one after another, by hand."""
    out = []
    for number in numbers:
        for k in range(dims // 2):
            angle = 2 * math.pi * number / 10000 ** (2 * k / dims)
            out += [math.sin(angle), math.cos(angle)]
    return out


def test_a_box_code_has_the_order_y1_x1_x2_y2() -> None:
    x1, y1, x2, y2 = 0.1, 0.25, 0.6, 0.9
    found = sine_code(torch.tensor([x1, y1, x2, y2], dtype=torch.float64), 128)
    assert found.shape == (512,)
    assert found.tolist() == pytest.approx(coded([y1, x1, x2, y2], 128), abs=1e-12)


def test_grid_cells_go_row_by_row_with_x_fastest() -> None:
    found = grid_boxes(3).tolist()
    expected = [[x / 3, y / 3, (x + 1) / 3, (y + 1) / 3] for y in range(3) for x in range(3)]
    assert found == [pytest.approx(cell) for cell in expected]


def by_hand(connector: Connector, feature: torch.Tensor, corners: list[float]) -> torch.Tensor:
    """One token: two layers with a GELU between, and the projected code of the box."""
    x1, y1, x2, y2 = corners
    inner = connector.first.weight @ feature + connector.first.bias
    inner = torch.stack([v * 0.5 * (1 + torch.erf(v / math.sqrt(2))) for v in inner])
    code = torch.tensor(coded([y1, x1, x2, y2], 16), dtype=torch.float64)
    return (
        connector.second.weight @ inner + connector.second.bias + connector.place.weight @ code + connector.place.bias
    )


def test_a_level_is_cut_to_the_image_and_resized_without_aligned_corners() -> None:
    seen = features()
    found = level_map(seen, 1, -2, 3)  # 6 x 8 cells, of which 6 x 4 are image
    height, width = 6, 4
    for row in range(3):
        for column in range(3):
            y = min(max((row + 0.5) * height / 3 - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / 3 - 0.5, 0), width - 1)
            value = torch.zeros(32, dtype=torch.float64)
            for cy, wy in ((math.floor(y), 1 - y % 1), (min(math.floor(y) + 1, height - 1), y % 1)):
                for cx, wx in ((math.floor(x), 1 - x % 1), (min(math.floor(x) + 1, width - 1), x % 1)):
                    value = value + wy * wx * seen.memory_BSC[1, 12 * 16 + cy * 8 + cx]
            assert torch.allclose(found[row * 3 + column], value, atol=1e-12)


def test_image_tokens_are_the_coarse_grid_a_separator_and_the_fine_grid() -> None:
    made, seen = heads(), features()
    tokens = made.image_tokens(seen, 0)
    assert tokens.shape == (4 + 1 + 9, 32)
    assert made.separator is not None
    assert torch.equal(tokens[4], made.separator[0])
    coarse = level_map(seen, 0, -1, 2)
    assert torch.allclose(tokens[1], by_hand(made.connector, coarse[1], [0.5, 0.0, 1.0, 0.5]), atol=1e-12)


@pytest.mark.parametrize(("levels", "grids", "count"), [((-2, -3), (20, 27), 1130), ((-2,), (27,), 729)])
def test_llmdets_geometry_has_1130_and_729_tokens(levels: tuple[int, ...], grids: tuple[int, ...], count: int) -> None:
    made = heads(levels=levels, grids=grids, looks="off")
    assert made.image_tokens(features(), 0).shape == (count, 32)


def one_by_one(made: CaptionHeads, seen: Features, image: int, query: int, text: str) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy and token count of one region in a sequence of its own, through one pass of the model."""
    script = made.region_script
    assert made.region_connector is not None
    cx, cy, w, h = seen.boxes_BQ4[image, query].tolist()
    token = by_hand(
        made.region_connector, seen.states_BQC[image, query], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    )
    pieces = script.before + Piece((0,), (False,)) + script.after + script.answer(text)
    embeds = made.llm.embed(torch.tensor(pieces.ids)).clone()
    embeds[len(script.before)] = token
    alone = made.region_rows([text])
    glance = None
    if made.reference is not None:
        part = Features(
            seen.memory_BSC[image : image + 1], seen.real_BS[image : image + 1], seen.shapes,
            seen.ratios_BV2[image : image + 1], seen.states_BQC[image : image + 1], seen.boxes_BQ4[image : image + 1],
        )  # fmt: skip
        glance = made.glance(part, torch.tensor([0]), seen.boxes_BQ4[image, query][None].detach(), alone)
    hidden = made.llm(embeds[None], alone, glance)[0]
    total, count = torch.zeros((), dtype=torch.float64), 0
    for place in range(1, len(pieces)):
        if pieces.wanted[place]:
            scores = made.llm.head(hidden[place - 1])
            total = total - scores[pieces.ids[place]] + scores.exp().sum().log()
            count += 1
    return total, count


CHOSEN = [(0, 4, "Young man."), (0, 2, "Red car."), (1, 3, "A dog.")]  # image, matched query, text


@pytest.mark.parametrize("looks", ["off", "added", "normed"])
@pytest.mark.parametrize(("row_tokens", "count"), [(1024, 1), (85, 2), (1, 3)])
def test_packed_regions_have_the_loss_of_regions_one_by_one(looks: str, row_tokens: int, count: int) -> None:
    made, seen = heads(looks=looks, row_tokens=row_tokens), features()
    shake(made)
    found = made(seen, match(), WORDS)["loss/caption_region"]
    parts = [one_by_one(made, seen, *chosen) for chosen in CHOSEN]
    expected = sum(float(total) for total, _ in parts) / sum(tokens for _, tokens in parts)
    assert float(found) == pytest.approx(expected, abs=1e-10)
    assert made.region_rows([text for *_, text in CHOSEN]).ids_RL.shape[0] == count


def test_packed_regions_have_the_gradients_of_regions_one_by_one() -> None:
    made, seen = heads(), features()
    shake(made)
    made(seen, match(), WORDS)["loss/caption_region"].backward()
    assert seen.states_BQC.grad is not None
    packed, seen.states_BQC.grad = seen.states_BQC.grad, None
    parts = [one_by_one(made, seen, *chosen) for chosen in CHOSEN]
    (sum(total for total, _ in parts) / sum(count for _, count in parts)).backward()  # type: ignore[union-attr]
    assert torch.allclose(packed, seen.states_BQC.grad, atol=1e-10)
    touched = {(int(b), int(q)) for b, q in packed.abs().sum(-1).nonzero()}
    assert touched == {(image, query) for image, query, _ in CHOSEN}


def test_the_image_loss_is_the_mean_over_the_texts_of_a_batch() -> None:
    made, seen = heads(), features()
    shake(made)
    found = made(seen, match(), WORDS)["loss/caption_image"]
    total, count = 0.0, 0
    for image in (0, 2):
        script = made.image_script
        tokens = made.image_tokens(seen, image)
        before, after = script.before, script.after + script.answer(WORDS[image].image or "")
        embeds = torch.cat([made.llm.embed(torch.tensor(before.ids)), tokens, made.llm.embed(torch.tensor(after.ids))])
        hidden = made.llm.body(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0]
        ids = before.ids + (0,) * len(tokens) + after.ids
        wanted = before.wanted + (False,) * len(tokens) + after.wanted
        for place in range(1, len(ids)):
            if wanted[place]:
                total -= float(made.llm.head(hidden[place - 1]).log_softmax(-1)[ids[place]])
                count += 1
    assert float(found) == pytest.approx(total / count, abs=1e-10)


def region_loss(made: CaptionHeads) -> float:
    return float(made(features(), match(), WORDS)["loss/caption_region"].detach())


def test_a_fresh_look_changes_nothing_and_upstreams_norm_does() -> None:
    without = region_loss(heads(looks="off"))
    assert region_loss(heads(looks="added")) == without
    assert region_loss(heads(looks="normed")) != pytest.approx(without, abs=1e-3)


def test_a_fresh_normed_look_divides_the_token_by_its_root_mean_square() -> None:
    made, seen = heads(looks="normed"), features()
    regions = made.choose(match(), WORDS)
    rows = made.region_rows(regions.texts)
    glance = made.glance(seen, regions.image_N, seen.boxes_BQ4[regions.image_N, regions.query_N], rows)
    assert glance is not None
    hidden = torch.randn(*rows.ids_RL.shape, 32, dtype=torch.float64)
    look = made.llm.layers[0].look
    assert look is not None
    out = look(hidden, glance)
    places = {(int(r), int(c)) for r, c in rows.images_N2}
    for r in range(hidden.shape[0]):
        for c in range(hidden.shape[1]):
            own = hidden[r, c]
            scaled = own / math.sqrt(sum(float(v) ** 2 for v in own) / 32 + 1e-6)
            assert torch.allclose(out[r, c], scaled if (r, c) in places else own, atol=1e-9)


def test_a_look_reads_the_image_where_its_box_is() -> None:
    """Deformable attention by hand: every head, level and point, bilinear, padding is zero."""
    made, seen = heads(), features()
    shake(made)
    regions = made.choose(match(), WORDS)
    rows = made.region_rows(regions.texts)
    boxes = seen.boxes_BQ4[regions.image_N, regions.query_N].detach()
    glance = made.glance(seen, regions.image_N, boxes, rows)
    look = made.llm.layers[0].look
    assert glance is not None
    assert look is not None
    hidden = torch.randn(*rows.ids_RL.shape, 32, dtype=torch.float64)
    out = look(hidden, glance)
    number = [int(image) for image in regions.image_N].index(1)  # the narrow image
    row, column = rows.images_N2[number].tolist()
    own, box = hidden[row, column], boxes[number].tolist()
    scaled = [[v * r for v, r in zip(box, [0.5, 1.0, 0.5, 1.0], strict=True)] for _ in SHAPES]
    cy, cx, w, h = scaled[0][1], scaled[0][0], scaled[0][2], scaled[0][3]
    code = torch.tensor(coded([cy, cx, w, h], 16), dtype=torch.float64)
    assert made.reference is not None
    query = look.down(own) + made.reference(code)
    attention = look.attention
    offsets = attention.sampling_offsets(query).view(8, 3, 4, 2)
    weights = attention.attention_weights(query).view(8, 12).softmax(-1).view(8, 3, 4)
    values = attention.value_proj(seen.memory_BSC[1])
    values = torch.stack([value if real else 0 * value for value, real in zip(values, seen.real_BS[1], strict=True)])
    found = torch.zeros(8, 4, dtype=torch.float64)
    start = 0
    for level, (height, width) in enumerate(SHAPES):
        grid = values[start : start + height * width].view(height, width, 8, 4)
        start += height * width
        for head in range(8):
            for point in range(4):
                dx, dy = offsets[head, level, point].tolist()
                x = (scaled[level][0] + dx / 4 * scaled[level][2] * 0.5) * width - 0.5
                y = (scaled[level][1] + dy / 4 * scaled[level][3] * 0.5) * height - 0.5
                for iy, wy in ((math.floor(y), 1 - y % 1), (math.floor(y) + 1, y % 1)):
                    for ix, wx in ((math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)):
                        if 0 <= iy < height and 0 <= ix < width:
                            found[head] += weights[head, level, point] * wy * wx * grid[iy, ix, head]
    expected = own + look.up(attention.output_proj(found.flatten()))
    assert torch.allclose(out[row, column], expected, atol=1e-9)


def test_lora_adds_its_product_times_alpha_over_rank() -> None:
    made = heads(lora_rank=4, lora_alpha=12.0)
    shake(made)
    projection = made.llm.layers[1].layer.self_attn.q_proj
    x = torch.randn(5, 32, dtype=torch.float64)
    a, b = projection.lora_A["default"].weight, projection.lora_B["default"].weight
    expected = x @ projection.base_layer.weight.T + projection.base_layer.bias + 3.0 * (x @ a.T) @ b.T
    assert torch.allclose(projection(x), expected, atol=1e-12)
    kinds = {name.split(".")[-4] for name in made.trained() if "lora_A" in name}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_only_additions_learn_and_the_features_get_a_gradient() -> None:
    made, seen = heads(), features()
    losses = made(seen, match(), WORDS)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert set(losses) == {"loss/caption_image", "loss/caption_region"}
    base = [name for name, one in made.llm.named_parameters() if "lora_" not in name and ".look." not in name]
    assert all(made.llm.get_parameter(name).grad is None for name in base)
    silent = {name for name, one in made.trained().items() if one.grad is None}
    assert silent == set()
    assert seen.memory_BSC.grad is not None
    assert seen.states_BQC.grad is not None
    assert bool(seen.memory_BSC.grad[0].any())
    assert seen.boxes_BQ4.grad is None  # predicted boxes say where to look and learn nothing from it


@pytest.mark.slow
def test_both_losses_fall_where_features_tell_samples_apart() -> None:
    made, seen = heads(recompute=False), features()
    optimizer = torch.optim.Adam(made.trained().values(), lr=0.02)
    curve = []
    for _ in range(25):
        losses = made(seen, match(), WORDS)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        curve.append([float(value.detach()) for value in losses.values()])
    assert all(last < 0.5 * first for first, last in zip(curve[0], curve[-1], strict=True))


def test_without_any_text_the_loss_is_zero_and_reaches_every_weight() -> None:
    made = heads()
    losses = made(features(), match(), tuple(replace(one, image=None, regions=()) for one in WORDS))
    assert [float(value) for value in losses.values()] == [0.0, 0.0]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(one.grad is not None and not one.grad.any() for one in made.trained().values())


def test_boxes_are_drawn_by_the_seed_of_the_sample_alone() -> None:
    made = heads(max_regions=3)
    many = Words(None, tuple(f"{n}." for n in range(9)), (7, 1))
    row = torch.arange(9)[None]
    alone = made.choose(row, [many])
    beside = made.choose(torch.cat([row, row]), [replace(many, seed=(7, 2)), many])
    assert len(alone.texts) == 3
    assert beside.texts[3:] == alone.texts
    assert beside.texts[:3] != alone.texts
    assert alone.query_N.tolist() == [int(text[:-1]) for text in alone.texts]


def test_a_box_without_a_query_is_not_described() -> None:
    made = heads()
    found = made.choose(torch.tensor([[-1, 2, -1]]), [Words(None, ("A.", "B.", "C."), (0,))])
    assert found.texts == ("C.",)


def test_weights_of_the_losses_scale_them_and_zero_turns_off() -> None:
    once, thrice = heads(), heads(region_weight=3.0, image_weight=0.0)
    a, b = once(features(), match(), WORDS), thrice(features(), match(), WORDS)
    assert float(b["loss/caption_region"]) == pytest.approx(3 * float(a["loss/caption_region"]))
    assert float(b["loss/caption_image"]) == 0.0
    assert not any(name.startswith(("connector.", "separator")) for name in thrice.trained())


def test_alignment_trains_the_image_connector_alone_and_serves_both_later(tmp_path: module.Path) -> None:
    first = heads(stage="align")
    assert {name.split(".")[0] for name in first.trained()} == {"connector", "separator"}
    assert set(first(features(), match(), WORDS)) == {"loss/caption_image"}
    with torch.no_grad():
        first.connector.first.weight.normal_()
    module.write(tmp_path, first)
    second = heads()
    module.load(tmp_path, second)
    assert second.region_connector is not None
    for connector in (second.connector, second.region_connector):
        assert torch.equal(connector.first.weight, first.connector.first.weight)


def test_what_is_written_holds_no_weight_of_the_language_model(tmp_path: module.Path) -> None:
    made = heads()
    shake(made)
    module.write(tmp_path, made)
    stored = module.load_file(tmp_path / "captions.safetensors")
    assert not any("embed" in name or "base_layer" in name or "norm" in name for name in stored)
    other = heads()
    module.load(tmp_path, other)
    assert all(torch.equal(a, b) for a, b in zip(made.own().values(), other.own().values(), strict=True))
    assert set(stored) == set(made.trained())


def test_weights_of_another_shape_or_none_are_one_line(tmp_path: module.Path) -> None:
    with pytest.raises(MissingError, match=r"holds no captions\.safetensors"):
        module.load(tmp_path, heads())
    module.write(tmp_path, heads(lora_rank=2))
    with pytest.raises(FormatError, match="does not fit this language model and detector"):
        module.load(tmp_path, heads())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (-4,), "grids": (2,)}, r"captions\.levels names level -4; the detector has 3"),
        ({"grids": (2,)}, r"captions\.grids needs a number of cells for each"),
        ({"image_tokens": 60}, r"captions\.image_tokens 60 leaves no room beside 14 image tokens"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CaptionHeads(nn.Module(), config(), settings(**changes))  # type: ignore[arg-type]
