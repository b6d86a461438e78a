"""A deeper base computes what the one it was grown from does, and its new layers can learn."""

import torch
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.pretraining.growing import grown
from transformers import Qwen2ForCausalLM


def test_new_layers_change_no_logit_until_they_are_trained() -> None:
    model = Qwen2ForCausalLM.from_pretrained(FOLDER / "base", dtype=torch.float32).eval()
    layers = model.config.num_hidden_layers
    deeper = grown(model, (1, 3)).eval()
    assert deeper.config.num_hidden_layers == layers + 2
    ids = torch.arange(10, 90)[None]
    with torch.inference_mode():
        assert torch.equal(deeper(input_ids=ids).logits, model(input_ids=ids).logits)
    deeper(input_ids=ids, labels=ids).loss.backward()
    for index in (2, 5):
        layer = deeper.model.layers[index]
        assert layer.self_attn.o_proj.weight.grad.norm() > 0
        assert layer.mlp.down_proj.weight.grad.norm() > 0
