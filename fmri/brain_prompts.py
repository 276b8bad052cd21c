r"""Texts through open_clip's tower, with soft prompts that can be learned.

A soft prompt is a few vectors in the space of word embeddings, put between the start of a text
and its first word. They are learned through the frozen tower: the same for all brains
(Zhou et al. 2022a), or with a part that follows from the brain's pooled vector,
``context = v + net(f(x))`` (Zhou et al. 2022b), and never from the picture.

Text i is given the context of brain i, as Wang et al. have it. That can leak: a context that
follows from the brain may carry what the contrast should find in the words. Hold results against
those without prompts, which are the default.

References
----------
Zhou et al., "Learning to prompt for vision-language models" (IJCV 2022).
Zhou et al., "Conditional prompt learning for vision-language models" (CVPR 2022).
Wang et al., "Decoding visual experience and mapping semantics through whole-brain analysis using
fMRI foundation models" (2024), where prompts are made of whole numbers and have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmri.clip_targets import activation_of, architecture_of, find_weights, read_weights
from neuro.device import device_of
from neuro.errors import ContractError, DataError, InputError

__all__ = ["PromptLearner", "SoftPrompts", "TextTower"]

_BATCH = 256
CONDITIONS = ("nothing", "brain")


class TextTower(nn.Module):
    """CLIP's text tower, frozen, which takes context vectors between start and words.

    Parameters
    ----------
    arch, weights, quick_gelu
        As for `fmri.clip_targets.OpenCLIP`; with `weights` None they are random, to try things.
    random_state : int
    revision : str, optional
        Of a hub id.

    Attributes
    ----------
    random_weights : bool
    width, n_features, n_positions : int
        Of word embeddings, of the texts' embeddings, and the longest text.

    Raises
    ------
    InputError
        Where open_clip is missing, or the tower is another than CLIP's causal transformer.
    ContractError
        Where the weights are of another architecture.
    """

    def __init__(
        self,
        arch: str | Path | None = None,
        weights: str | Path | None = None,
        *,
        quick_gelu: bool | None = None,
        random_state: int = 0,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        file, stated, _ = find_weights(weights, arch, revision)
        self.arch, config = architecture_of(arch, stated)
        state = {} if file is None else read_weights(file)
        gelu = activation_of(
            self.arch, bool(config.get("quick_gelu", False)), quick_gelu, file, stated, state
        )
        self.random_weights = file is None
        self.network = _build(config, gelu, random_state)
        if file is not None:
            _load(self.network, state, file)
        self.width = int(self.network.token_embedding.embedding_dim)
        self.n_positions = int(self.network.num_pos)
        self.n_features = int(config["embed_dim"])

    def tokenize(self, texts: Sequence[str], n_context: int = 0) -> Tensor:
        """Return word numbers, shape (text, n_positions), leaving room for context vectors.

        Raises
        ------
        DataError
            Where a text is empty or too long.
        """
        from open_clip.tokenizer import SimpleTokenizer

        found = SimpleTokenizer(context_length=self.n_positions)
        room = self.n_positions - n_context - 2
        for text in texts:
            n = len(found.encode(text))
            if not 0 < n <= room:
                raise DataError(
                    f"the text {text[:60]!r} has {n} tokens; expected 1 to {room} (a tower of "
                    f"{self.n_positions} positions, {n_context} of them context)"
                )
        return found(list(texts))

    def forward(self, ids: Tensor, context: Tensor | None = None) -> Tensor:
        """Embed texts.

        Parameters
        ----------
        ids : Tensor of int64, shape (text, n_positions)
            Of `tokenize`.
        context : Tensor, shape (text, n_context, width), optional
            Put after the start token; what falls off the end is padding.

        Returns
        -------
        Tensor, shape (text, n_features)
            Not normalised.
        """
        from open_clip.transformer import text_global_pool

        own = self.network
        words = own.token_embedding(ids)
        if context is not None:
            n = context.shape[1]
            words = torch.cat([words[:, :1], context, words[:, 1 : ids.shape[1] - n]], 1)
            blank = ids.new_zeros(len(ids), n)
            ids = torch.cat([ids[:, :1], blank, ids[:, 1 : ids.shape[1] - n]], 1)
        x = own.transformer(words + own.positional_embedding, attn_mask=own.attn_mask)
        x = text_global_pool(own.ln_final(x), ids, own.pool_type, eos_token_id=own.eos_id)
        if own.text_projection is None:
            return x
        plain = isinstance(own.text_projection, nn.Parameter)
        return x @ own.text_projection if plain else own.text_projection(x)


class PromptLearner(nn.Module):
    """The context vectors that are learned.

    Parameters
    ----------
    n_context : int
    width : int
        Of the tower's word embeddings.
    n_pooled : int
        Of the brain's pooled vector.
    condition : {"nothing", "brain"}

    Attributes
    ----------
    usual : Tensor, shape (n_context, width)
        The mean context over the training trials, for texts that are asked without a brain.
    """

    usual: Tensor

    def __init__(self, n_context: int, width: int, n_pooled: int, condition: str) -> None:
        super().__init__()
        if condition not in CONDITIONS or n_context < 1:
            raise InputError(
                f"condition is {condition!r} and n_context {n_context}; expected one of "
                f"{', '.join(CONDITIONS)} and at least 1"
            )
        self.base = nn.Parameter(0.02 * torch.randn(n_context, width))
        hidden = max(4, n_pooled // 16)
        self.net = (
            nn.Sequential(nn.Linear(n_pooled, hidden), nn.ReLU(),
                          nn.Linear(hidden, n_context * width))
            if condition == "brain" else None
        )  # fmt: skip
        self.register_buffer("usual", self.base.detach().clone())

    def forward(self, pooled: Tensor) -> Tensor:
        """Return contexts, shape (trial, n_context, width)."""
        shape = (len(pooled), *self.base.shape)
        if self.net is None:
            return self.base.expand(shape)
        return self.base + self.net(pooled).view(shape)


class SoftPrompts(nn.Module):
    """Embeddings of items' texts, with soft prompts.

    Parameters
    ----------
    tower : TextTower
    n_context : int
        Vectors; 0 is none: texts as they are.
    condition : {"nothing", "brain"}

    Attributes
    ----------
    learned : PromptLearner or None
        After `learn`.
    """

    def __init__(self, tower: TextTower, n_context: int = 8, condition: str = "nothing") -> None:
        super().__init__()
        self._held = [tower]  # not a part: it is frozen, and large in every checkpoint
        self.n_context, self.condition = n_context, condition
        self.n_features = tower.n_features
        self.learned: PromptLearner | None = None
        self.register_buffer("ids", torch.zeros(0, tower.n_positions, dtype=torch.long), False)

    @property
    def tower(self) -> TextTower:
        """The frozen tower."""
        return self._held[0]

    def learn(self, words: Sequence[str] | None, learner: PromptLearner | None) -> None:
        """Take the texts of the items, in their order, and the context vectors to be learned.

        Raises
        ------
        DataError
            Where there are no texts, or one is empty or too long.
        """
        if not words:
            raise DataError("prompts need the texts of the items: give fit text={item: text}")
        self.ids = self.tower.tokenize(words, self.n_context)
        self.learned = learner

    def forward(self, row: Tensor, pooled: Tensor) -> Tensor:
        """Embed the texts of some items, each with the context of its brain.

        Parameters
        ----------
        row : Tensor of int64, shape (trial,)
        pooled : Tensor, shape (trial, n_pooled)

        Returns
        -------
        Tensor, shape (trial, n_features)
        """
        tower = self.tower.to(pooled.device)
        context = None if self.learned is None else self.learned(pooled)
        return tower(self.ids[row], context)

    def facts(self) -> dict[str, Any]:
        """Return what is needed to make the learner again (JSON)."""
        return {
            "n_context": self.n_context, "condition": self.condition, "width": self.tower.width,
            "arch": self.tower.arch, "random_weights": self.tower.random_weights,
        }  # fmt: skip


def embed_texts(
    tower: TextTower, texts: Sequence[str], learner: PromptLearner | None = None,
    device: str = "auto",
) -> NDArray[np.float32]:  # fmt: skip
    """Embed texts with the usual context of a learner, or as they are.

    Returns
    -------
    ndarray of float32, shape (text, n_features)
    """
    if learner is not None and learner.base.shape[1] != tower.width:
        raise ContractError(
            f"the soft prompts have {learner.base.shape[1]} features, the tower's words "
            f"{tower.width}; take the tower of the training"
        )
    target = device_of(device, fallback=True)
    ids = tower.tokenize(texts, 0 if learner is None else len(learner.base)).to(target)
    tower.to(target)
    context = None if learner is None else learner.usual.to(target)
    with torch.inference_mode():
        parts = [
            tower(part, None if context is None else context.expand(len(part), -1, -1)).cpu()
            for part in ids.split(_BATCH)
        ]
    return torch.cat(parts).float().numpy()


# Inside ---------------------------------------------------------------------------------------


def _build(config: dict[str, Any], quick_gelu: bool, seed: int) -> Any:
    from open_clip.model import _build_text_tower

    text = config.get("text_cfg")
    if not text or text.get("hf_model_name"):
        raise InputError(
            "the architecture has no text tower of CLIP's own kind (text_cfg without a model of "
            "the hub); embed the texts yourself and give fit the array"
        )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            tower = _build_text_tower(config["embed_dim"], text, quick_gelu)
        except (TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"the text tower can't be built: {error}") from error
    if tower.cls_emb is not None or tower.use_pad_mask or tower.attn_mask is None:
        raise InputError("soft prompts need CLIP's causal text tower; this one is another kind")
    return tower.eval().requires_grad_(False)


def _load(tower: Any, state: dict[str, Any], file: Path) -> None:
    """Load a tower's own arrays, with or without the prefix ``text.``."""
    expected = tower.state_dict()
    prefixed = any(name.startswith("text.") for name in state)
    own = {
        name.removeprefix("text."): value
        for name, value in state.items()
        if (name.startswith("text.") if prefixed else name in expected)
    }
    missing, unknown = set(expected) - set(own), set(own) - set(expected)
    wrong = [k for k in set(own) & set(expected) if own[k].shape != expected[k].shape]
    if missing or unknown or wrong:
        first = sorted(wrong or missing or unknown)[0]
        raise ContractError(
            f"{file} isn't of this text tower: {len(missing)} arrays missing, {len(unknown)} "
            f"unknown, {len(wrong)} of another shape; the first is {first}"
        )
    tower.load_state_dict({k: v.float() for k, v in own.items()})
