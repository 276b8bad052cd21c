r"""Weights that others trained: their names brought to ours, nothing guessed.

Two families are known, both as a ``.safetensors`` file (other formats hold pickles; convert them
once, where you trust them):

``learning-from-brains`` (Thomas et al. 2022), for the causal encoder:

=====================================================  =========================================
theirs                                                 ours
=====================================================  =========================================
``embedder.embed_model.model.0.*``                     ``embed.*``
``embedder.embed_model.model.1.*``                     ``embed_norm.*``
``embedder.wt_re.weight``                              ``time.weight``
``embedder.msk_embed``, ``embedder.cls_embed``         ``mask_vector``, ``cls_vector`` (flat)
``decoder.transformer.wpe.weight``                     ``position.weight``
``decoder.transformer.h.N.ln_1.*``, ``.ln_2.*``        ``blocks.N.norm1.*``, ``norm2.*``
``decoder.transformer.h.N.attn.c_attn.*``              ``blocks.N.qkv.*`` (transposed)
``decoder.transformer.h.N.attn.c_proj.*``              ``blocks.N.merge.*`` (transposed)
``decoder.transformer.h.N.mlp.c_fc.*``, ``.c_proj.*``  ``blocks.N.widen.*``, ``narrow.*`` (tr.)
``decoder.transformer.ln_f.*``                         ``norm.*``
``decoder.pooler_layer.0.*``                           ``pooler.*``
``unembedder.model.0.*``                               ``unembed.*``
=====================================================  =========================================

``brainlm`` (Ortega Caro et al. 2024), the small networks with Nyströmformer layers, for the
masked encoder. Their sequence is as long as their landmarks are many, so that their attention is
exact, as ours is. Only the encoder is taken; the decoder serves pretraining alone.

=====================================================  =========================================
theirs                                                 ours
=====================================================  =========================================
``vit.embeddings.signal_embedding_projection.*``       ``embed.*``
``vit.embeddings.xyz_embedding_projection.*``          ``place.*``
``vit.embeddings.cls_token``                           ``cls_token`` (flat)
``vit.encoder.layer.N.attention.self.query.*``, ...    ``blocks.N.qkv.*`` (query, key, value)
``vit.encoder.layer.N.attention.self.conv.weight``     ``blocks.N.value_conv.weight``
``vit.encoder.layer.N.attention.output.dense.*``       ``blocks.N.merge.*``
``vit.encoder.layer.N.attention.output.LayerNorm.*``   ``blocks.N.norm1.*``
``vit.encoder.layer.N.intermediate.dense.*``           ``blocks.N.widen.*``
``vit.encoder.layer.N.output.dense.*``                 ``blocks.N.narrow.*``
``vit.encoder.layer.N.output.LayerNorm.*``             ``blocks.N.norm2.*``
``vit.layernorm.*``                                    ``norm.*``
=====================================================  =========================================

References
----------
Thomas, Ré, Poldrack, "Self-supervised learning of brain dynamics from broad neuroimaging data"
(NeurIPS 2022). Ortega Caro et al., "BrainLM" (ICLR 2024).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmri.brain_encoders import BrainEncoder, CausalEncoder
from fmri.brain_masked import MaskedEncoder
from neuro.errors import ContractError, InputError

__all__ = ["FAMILIES", "load_foreign"]

_GPT = {
    r"embedder\.embed_model\.model\.0\.(weight|bias)": r"embed.\1",
    r"embedder\.embed_model\.model\.1\.(weight|bias)": r"embed_norm.\1",
    r"embedder\.wt_re\.weight": "time.weight",
    r"embedder\.(msk|cls)_embed": r"\1_vector",
    r"decoder\.transformer\.wpe\.weight": "position.weight",
    r"decoder\.transformer\.h\.(\d+)\.ln_([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
    r"decoder\.transformer\.h\.(\d+)\.attn\.c_attn\.(weight|bias)": r"blocks.\1.qkv.\2",
    r"decoder\.transformer\.h\.(\d+)\.attn\.c_proj\.(weight|bias)": r"blocks.\1.merge.\2",
    r"decoder\.transformer\.h\.(\d+)\.mlp\.c_fc\.(weight|bias)": r"blocks.\1.widen.\2",
    r"decoder\.transformer\.h\.(\d+)\.mlp\.c_proj\.(weight|bias)": r"blocks.\1.narrow.\2",
    r"decoder\.transformer\.ln_f\.(weight|bias)": r"norm.\1",
    r"decoder\.pooler_layer\.0\.(weight|bias)": r"pooler.\1",
    r"unembedder\.model\.0\.(weight|bias)": r"unembed.\1",
}
_LAYER = r"vit\.encoder\.layer\.(\d+)\."
_BRAINLM = {
    r"vit\.embeddings\.signal_embedding_projection\.(weight|bias)": r"embed.\1",
    r"vit\.embeddings\.xyz_embedding_projection\.(weight|bias)": r"place.\1",
    r"vit\.embeddings\.cls_token": "cls_token",
    _LAYER + r"attention\.self\.(query|key|value)\.(weight|bias)": r"blocks.\1.qkv.\3/\2",
    _LAYER + r"attention\.self\.conv\.weight": r"blocks.\1.value_conv.weight",
    _LAYER + r"attention\.output\.dense\.(weight|bias)": r"blocks.\1.merge.\2",
    _LAYER + r"attention\.output\.LayerNorm\.(weight|bias)": r"blocks.\1.norm1.\2",
    _LAYER + r"intermediate\.dense\.(weight|bias)": r"blocks.\1.widen.\2",
    _LAYER + r"output\.dense\.(weight|bias)": r"blocks.\1.narrow.\2",
    _LAYER + r"output\.LayerNorm\.(weight|bias)": r"blocks.\1.norm2.\2",
    r"vit\.layernorm\.(weight|bias)": r"norm.\1",
}
# Left out: word embeddings that GPT-2 never uses here, buffers, heads of other tasks, decoders.
_GPT_UNUSED = (
    r"decoder\.transformer\.wte\.weight|decoder\.transformer\.h\.\d+\.attn\.(bias|masked_bias)|"
    r"decoder\.decoding_head\..*"
)
_BRAINLM_UNUSED = r"decoder\..*|vit\.embeddings\.(pos_embedding\.pe|position_embeddings)"
_OURS_UNSET = re.compile(r"decoder_.*|mask_token|gates")

FAMILIES: dict[str, tuple[dict[str, str], str, type[BrainEncoder]]] = {
    "learning-from-brains": (_GPT, _GPT_UNUSED, CausalEncoder),
    "brainlm": (_BRAINLM, _BRAINLM_UNUSED, MaskedEncoder),
}
"""Names that are translated, names that are left out, and the encoder they are for."""


def load_foreign(encoder: BrainEncoder, weights: str | Path | Mapping[str, Any]) -> str:
    """Load weights of another project into an encoder, in place.

    Parameters
    ----------
    encoder : CausalEncoder or MaskedEncoder
        With the sizes of the weights.
    weights : path or mapping of str to Tensor
        ``.safetensors``, or tensors by name.

    Returns
    -------
    str
        Which family it was.

    Raises
    ------
    ContractError
        Where names are missing or unknown, shapes differ (both sides are named), or the weights
        are for another encoder.
    InputError
        Where the names are of no family that is known.
    """
    label, state = _opened(weights)
    family = _family(label, state)
    rules, unused, kind = FAMILIES[family]
    if not isinstance(encoder, kind):
        raise ContractError(
            f"{label}: is of {family}, for the '{kind.kind}' encoder, not '{encoder.kind}'"
        )
    found, unknown = _translated(state, rules, unused)
    expected = {k: v for k, v in encoder.state_dict().items() if not _is_ours(family, k)}
    _check(label, family, found, expected, unknown)
    with torch.no_grad():
        for name, value in found.items():
            expected[name].copy_(value)
    return family


# Inside ---------------------------------------------------------------------------------------


def _opened(weights: Any) -> tuple[str, dict[str, Tensor]]:
    if isinstance(weights, Mapping):
        return "the weights", dict(weights)
    from fmri.clip_targets import read_weights

    path = Path(weights)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights")
    return str(path), read_weights(path)


def _family(label: str, state: dict[str, Tensor]) -> str:
    counts = {
        family: sum(any(re.fullmatch(rule, name) for rule in rules) for name in state)
        for family, (rules, _, _) in FAMILIES.items()
    }
    best = max(counts, key=lambda name: counts[name])
    if not counts[best]:
        shown = ", ".join(sorted(state)[:4])
        raise InputError(
            f"{label}: no name is of {' or '.join(FAMILIES)}; it holds {shown}, ... "
            f"({len(state)}). fmri.brain_weights lists the names that are known"
        )
    return best


def _translated(
    state: dict[str, Tensor], rules: dict[str, str], unused: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors by our names, and the names that no rule knows."""
    parts: dict[str, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        rule = next((r for r in rules if re.fullmatch(r, name)), None)
        if rule is None:
            if not re.fullmatch(unused, name):
                unknown.append(name)
            continue
        own = re.sub(rule, rules[rule], name).replace("msk_vector", "mask_vector")
        if "/" in own:
            own, part = own.split("/")
            parts.setdefault(own, {})[part] = value
            continue
        if re.search(r"\.c_(attn|proj|fc)\.weight$", name):
            value = value.T  # GPT-2 keeps its layers (in, out)
        found[own] = value.flatten() if own.endswith(("_vector", "cls_token")) else value
    for own, three in parts.items():
        there = [three[k] for k in ("query", "key", "value") if k in three]
        found[own] = torch.cat(there)
    return found, unknown


def _is_ours(family: str, name: str) -> bool:
    return family == "brainlm" and bool(_OURS_UNSET.fullmatch(name.split(".")[0]))


def _check(
    label: str,
    family: str,
    found: dict[str, Tensor],
    expected: Mapping[str, Tensor],
    unknown: list[str],
) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected)) + sorted(unknown)
    wrong = [k for k in sorted(set(found) & set(expected)) if found[k].shape != expected[k].shape]
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing ({', '.join(missing[:4])})")
    if extra:
        faults.append(f"{len(extra)} unexpected ({', '.join(extra[:4])})")
    if wrong:
        k = wrong[0]
        faults.append(
            f"{len(wrong)} of another shape ({k}: {tuple(found[k].shape)} in the file, expected "
            f"{tuple(expected[k].shape)})"
        )
    if faults:
        raise ContractError(
            f"{label}: the weights of {family} don't fit this encoder: {'; '.join(faults)}; give "
            "it the sizes and parcels that they were trained with"
        )
