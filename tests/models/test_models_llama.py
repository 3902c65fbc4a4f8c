"""Llama turns queries and keys by their distance alone, shares keys in groups, and its loss comes in chunks too."""

from __future__ import annotations

import pytest
import torch

from thrifty.models import losses
from thrifty.models.init import initialise
from thrifty.models.layers import ATTENTION, use_attention
from thrifty.models.llama import Llama, rotate, speeds


def llama(**sizes: object) -> Llama:
    arguments = {"vocabulary": 40, "length": 12, "layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "ffn": 24}
    model = Llama(**{"tied": True, **arguments, **sizes}).double()  # type: ignore[arg-type]
    initialise(model, "xavier_normal", 0)
    return model


def tokens(rows: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(40, (rows, length), generator=torch.Generator().manual_seed(0))


def test_a_product_of_turned_heads_depends_on_their_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    q_D, k_D = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    angles_TE = torch.arange(20.0)[:, None] * speeds(8, 10_000.0)
    turns = (angles_TE.cos().double(), angles_TE.sin().double())
    scores_TS = rotate(q_D.expand(20, 8), turns) @ rotate(k_D.expand(20, 8), turns).T
    for distance in range(-5, 6):
        line = scores_TS.diagonal(distance)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=0, atol=1e-5)
    assert scores_TS.diagonal(0)[0] == pytest.approx(float(q_D @ k_D))


def test_turning_is_scaled_where_it_is_slow() -> None:
    plain_E, scaled_E = speeds(64, 500_000.0), speeds(64, 500_000.0, (8.0, 1.0, 4.0, 8192))
    turns_E = plain_E * 8192 / (2 * torch.pi)
    assert torch.equal(scaled_E[turns_E >= 4], plain_E[turns_E >= 4])
    torch.testing.assert_close(scaled_E[turns_E <= 1], plain_E[turns_E <= 1] / 8)
    between = (turns_E > 1) & (turns_E < 4)
    assert between.any() and bool((scaled_E[between] < plain_E[between]).all())
    assert bool((scaled_E[between] > plain_E[between] / 8).all())


@pytest.mark.parametrize("way", ATTENTION)
def test_every_way_of_attention_gives_the_same(way: str) -> None:
    model = llama()
    expected = model(tokens())
    ways = {"float64 training": way, "float64 evaluation": way}
    torch.testing.assert_close(use_attention(model, ways)(tokens()), expected)


def test_groups_are_heads_whose_keys_are_the_same() -> None:
    grouped, whole = llama(kv_heads=2), llama(kv_heads=4)
    state = grouped.state_dict()
    for name in [name for name in state if "qkv" in name]:
        q, k, v = (each.unflatten(0, (-1, 4)) for each in state[name].split((16, 8, 8)))
        state[name] = torch.cat((q, k.repeat_interleave(2, 0), v.repeat_interleave(2, 0))).flatten(0, 1)
    whole.load_state_dict(state)
    torch.testing.assert_close(whole(tokens()), grouped(tokens()))


@pytest.mark.parametrize("tied", [True, False])
def test_its_loss_comes_in_chunks(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (losses.LARGE_LOGITS_BYTES, 0):
        monkeypatch.setattr(losses, "LARGE_LOGITS_BYTES", most)
        model = llama(tied=tied)
        loss = losses.sum_cross_entropy(model, {"x": tokens()[:, :-1], "y": tokens()[:, 1:]})
        loss.backward()
        found.append((loss, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("sizes", "says"), [({"kv_heads": 3}, "groups"), ({"heads": 16}, "pairs of 16 heads")])
def test_sizes_that_do_not_divide(sizes: dict[str, int], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        llama(**sizes)
