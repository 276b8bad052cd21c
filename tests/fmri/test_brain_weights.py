"""Weights of other projects: numerically what their own modules give, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fmri.brain_encoders import CausalEncoder, CausalSizes, LinearEncoder
from fmri.brain_masked import MaskedEncoder, MaskedSizes
from fmri.brain_weights import load_foreign
from neuro.errors import ContractError, InputError

P, W = 7, 12


def gpt_state(depth=2):
    """Random tensors under the names of learning-from-brains."""
    torch.manual_seed(0)

    def r(*shape):
        return 0.3 * torch.randn(*shape)

    state = {
        "embedder.embed_model.model.0.weight": r(W, P), "embedder.embed_model.model.0.bias": r(W),
        "embedder.embed_model.model.1.weight": 1 + r(W), "embedder.embed_model.model.1.bias": r(W),
        "embedder.wt_re.weight": r(1501, W), "embedder.msk_embed": r(1, 1, P),
        "embedder.cls_embed": r(1, 1, P), "decoder.transformer.wte.weight": r(1, W),
        "decoder.transformer.wpe.weight": r(64, W), "decoder.transformer.ln_f.weight": 1 + r(W),
        "decoder.transformer.ln_f.bias": r(W), "decoder.pooler_layer.0.weight": r(W, W),
        "decoder.pooler_layer.0.bias": r(W), "unembedder.model.0.weight": r(P, W),
        "unembedder.model.0.bias": r(P),
    }  # fmt: skip
    for n in range(depth):
        h = f"decoder.transformer.h.{n}"
        state |= {
            f"{h}.ln_1.weight": 1 + r(W), f"{h}.ln_1.bias": r(W), f"{h}.ln_2.weight": 1 + r(W),
            f"{h}.ln_2.bias": r(W), f"{h}.attn.c_attn.weight": r(W, 3 * W),
            f"{h}.attn.c_attn.bias": r(3 * W), f"{h}.attn.c_proj.weight": r(W, W),
            f"{h}.attn.c_proj.bias": r(W), f"{h}.mlp.c_fc.weight": r(W, 4 * W),
            f"{h}.mlp.c_fc.bias": r(4 * W), f"{h}.mlp.c_proj.weight": r(4 * W, W),
            f"{h}.mlp.c_proj.bias": r(W), f"{h}.attn.bias": torch.ones(1, 1, 64, 64),
        }  # fmt: skip
    return state


def causal():
    return CausalEncoder(P, 2.0, CausalSizes(W, 2, 3, 0.1, 64)).eval()


def test_gpt_weights_give_what_gpt2_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    state = gpt_state()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    encoder = causal()
    assert load_foreign(encoder, tmp_path / "model.safetensors") == "learning-from-brains"
    config = transformers.GPT2Config(
        vocab_size=1, n_positions=64, n_embd=W, n_layer=2, n_head=3, activation_function="gelu"
    )
    gpt = transformers.GPT2Model(config).eval()
    own = {k.removeprefix("decoder.transformer."): v for k, v in state.items()
           if k.startswith("decoder.transformer.") and not k.endswith(".attn.bias")}  # fmt: skip
    gpt.load_state_dict(own, strict=False)
    x = torch.randn(3, 5, P)
    given = torch.cat([x, state["embedder.cls_embed"].expand(3, 1, P)], 1)
    inner = nn.functional.linear(given, *(
        state[f"embedder.embed_model.model.0.{k}"] for k in ("weight", "bias")))  # fmt: skip
    inner = nn.functional.layer_norm(inner, (W,), *(
        state[f"embedder.embed_model.model.1.{k}"] for k in ("weight", "bias")))  # fmt: skip
    inner = inner + state["embedder.wt_re.weight"][[0, 10, 20, 30, 40, 1500]]
    with torch.no_grad():
        last = gpt(inputs_embeds=inner).last_hidden_state[:, -1]
        pooled = torch.tanh(nn.functional.linear(last, *(
            state[f"decoder.pooler_layer.0.{k}"] for k in ("weight", "bias"))))  # fmt: skip
        found = encoder(x, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(found, pooled, atol=1e-5, rtol=1e-4)


def brainlm_state(depth=1, patch=4, kernel=3):
    torch.manual_seed(0)

    def r(*shape):
        return 0.3 * torch.randn(*shape)

    state = {
        "vit.embeddings.signal_embedding_projection.weight": r(W, patch),
        "vit.embeddings.signal_embedding_projection.bias": r(W),
        "vit.embeddings.xyz_embedding_projection.weight": r(W, 3),
        "vit.embeddings.xyz_embedding_projection.bias": r(W),
        "vit.embeddings.cls_token": r(1, 1, W), "vit.embeddings.pos_embedding.pe": r(50, W),
        "vit.layernorm.weight": 1 + r(W), "vit.layernorm.bias": r(W),
        "decoder.mask_token": r(1, 1, W), "decoder.decoder_pred1.weight": r(W // 2, W),
    }  # fmt: skip
    for n in range(depth):
        h = f"vit.encoder.layer.{n}"
        for name in ("query", "key", "value"):
            state |= {f"{h}.attention.self.{name}.weight": r(W, W),
                      f"{h}.attention.self.{name}.bias": r(W)}  # fmt: skip
        state |= {
            f"{h}.attention.self.conv.weight": r(2, 1, kernel, 1),
            f"{h}.attention.output.dense.weight": r(W, W),
            f"{h}.attention.output.dense.bias": r(W),
            f"{h}.attention.output.LayerNorm.weight": 1 + r(W),
            f"{h}.attention.output.LayerNorm.bias": r(W),
            f"{h}.intermediate.dense.weight": r(4 * W, W), f"{h}.intermediate.dense.bias": r(4 * W),
            f"{h}.output.dense.weight": r(W, 4 * W), f"{h}.output.dense.bias": r(W),
            f"{h}.output.LayerNorm.weight": 1 + r(W), f"{h}.output.LayerNorm.bias": r(W),
        }  # fmt: skip
    return state


def test_brainlm_weights_give_what_nystromformer_gives():
    transformers = pytest.importorskip("transformers")
    from transformers.models.nystromformer.modeling_nystromformer import NystromformerLayer

    state, places = brainlm_state(), torch.randn(P, 3)
    sizes = MaskedSizes(W, 1, 2, 4, 0.2, 8, 1, 2, 0.0, "post", 3, "cls")
    encoder = MaskedEncoder(places, sizes).eval()
    assert load_foreign(encoder, state) == "brainlm"
    config = transformers.NystromformerConfig(
        hidden_size=W, num_attention_heads=2, intermediate_size=4 * W, hidden_act="gelu",
        num_landmarks=64, segment_means_seq_len=64, conv_kernel_size=3, layer_norm_eps=1e-12,
        attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
    )  # fmt: skip
    layer = NystromformerLayer(config).eval()
    prefix = "vit.encoder.layer.0."
    layer.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    x = torch.randn(2, 8, P)
    patches = x.transpose(1, 2).unflatten(2, (2, 4))

    def projected(values, name):
        own = f"vit.embeddings.{name}_embedding_projection"
        return nn.functional.linear(values, state[f"{own}.weight"], state[f"{own}.bias"])

    tokens = projected(patches, "signal") + projected(places, "xyz")[:, None]
    rates = torch.exp(torch.arange(0, W, 2) * (-torch.log(torch.tensor(10000.0)) / W))
    code = torch.zeros(2, W)
    code[:, 0::2] = torch.sin(torch.arange(2)[:, None] * rates)
    code[:, 1::2] = torch.cos(torch.arange(2)[:, None] * rates)
    tokens = (tokens + code).flatten(1, 2)
    sequence = torch.cat([state["vit.embeddings.cls_token"].expand(2, 1, W), tokens], 1)
    with torch.no_grad():
        states = layer(sequence)[0]
        expected = nn.functional.layer_norm(
            states, (W,), state["vit.layernorm.weight"], state["vit.layernorm.bias"], 1e-12
        )[:, 0]
        found = encoder(x, torch.ones(2, 8, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    less = gpt_state()
    del less["decoder.transformer.h.1.ln_2.bias"]
    with pytest.raises(ContractError, match=r"1 missing \(blocks.1.norm2.bias\)"):
        load_foreign(causal(), less)
    with pytest.raises(ContractError, match=r"1 unexpected \(decoder.extra\)"):
        load_foreign(causal(), gpt_state() | {"decoder.extra": torch.zeros(1)})
    with pytest.raises(ContractError, match=r"12 unexpected \(blocks.2"):
        load_foreign(causal(), gpt_state(3))
    other = gpt_state() | {"embedder.embed_model.model.0.weight": torch.zeros(W, P + 1)}
    with pytest.raises(ContractError, match=r"\(12, 8\) in the file, expected \(12, 7\)"):
        load_foreign(causal(), other)
    with pytest.raises(ContractError, match="for the 'causal' encoder, not 'linear'"):
        load_foreign(LinearEncoder(P, W), gpt_state())
    with pytest.raises(InputError, match="no name is of learning-from-brains or brainlm"):
        load_foreign(causal(), {"a.b": torch.zeros(1)})
    before = causal()
    untouched = {k: v.clone() for k, v in before.state_dict().items()}
    with pytest.raises(ContractError):
        load_foreign(before, less)
    assert all(torch.equal(v, untouched[k]) for k, v in before.state_dict().items())
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(Exception, match="pickles"):
        load_foreign(causal(), tmp_path / "model.bin")


def test_a_file_of_weights_starts_a_fit(tmp_path):
    import numpy as np

    from fmri.whole_brain import WholeBrain

    save_file({k: v.contiguous() for k, v in gpt_state().items()}, tmp_path / "gpt.safetensors")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, P, 4)).astype(np.float32)
    sizes = {"width": W, "depth": 2, "n_heads": 3, "n_positions": 64, "pool": "cls",
             "predicts": "one"}  # fmt: skip
    model = WholeBrain(
        "causal", sizes=sizes, pretrained=tmp_path / "gpt.safetensors", max_epochs=1,
        learning_rate=1e-9,
    )  # fmt: skip
    model.fit(X, rng.normal(size=(20, 3)))
    found = model.networks_.brain.encoder.state_dict()["time.weight"]
    torch.testing.assert_close(found, gpt_state()["embedder.wt_re.weight"], atol=1e-6, rtol=0)
