"""The text encoder against numbers from the authors' code, with a tiny random one in the official layout."""

import numpy as np
import pytest
import torch

from fastwam_policy.model.checkpoint import CheckpointError
from fastwam_policy.model.text_encoder import clean_prompt, embed, encode_prompt, load_official_text_encoder

from .golden_files import GOLDEN, golden


@pytest.fixture(scope="module")
def encoder():
    return load_official_text_encoder(GOLDEN / "text_encoder_checkpoint.pt")


def test_embeddings(encoder):
    expected = golden("text_encoder")
    ids, mask = torch.from_numpy(expected["ids"]), torch.from_numpy(expected["mask"])
    raw = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    np.testing.assert_allclose(raw[mask].detach(), expected["raw_output"][expected["mask"]], rtol=0, atol=1e-5)
    context, context_mask = embed(encoder, ids, mask)
    np.testing.assert_allclose(context, expected["context"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(context_mask, expected["context_mask"])


def test_prompts_are_cleaned_as_in_training():
    assert clean_prompt("  fold\n the &amp;amp; towel ") == "fold the & towel"


def test_a_prompt_is_padded_and_truncated(encoder):
    def tokenizer(texts, max_length, **_):
        ids = [*(min(ord(letter), 299) for letter in texts[0][: max_length - 1]), 1]
        pad = max_length - len(ids)
        return {
            "input_ids": torch.tensor([[*ids, *[0] * pad]]),
            "attention_mask": torch.tensor([[True] * len(ids) + [False] * pad]),
        }

    context, mask = encode_prompt(encoder, tokenizer, "fold", 16)
    assert context.shape == (16, 48)
    assert mask.all()
    assert (context[5:] == 0).all()
    assert (context[:5] != 0).any(dim=1).all()
    assert encode_prompt(encoder, tokenizer, "x" * 99, 16)[0].shape == (16, 48)


def test_other_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="not a UMT5 encoder: 'shared.weight' is missing"):
        load_official_text_encoder(GOLDEN / "vae_checkpoint.pt")
    tensors = torch.load(GOLDEN / "text_encoder_checkpoint.pt", weights_only=True)
    tensors.pop("norm.weight")
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="missing: encoder.final_layer_norm.weight"):
        load_official_text_encoder(tmp_path / "other.pth")
