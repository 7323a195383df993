"""Runs in LeRobot's environment: a chunk of Fast-WAM checkpoints by LeRobot's own class and processors.

python lerobot_fastwam.py FRAME.npz CHECKPOINT...   (HF_HOME holds stand-ins for Wan2.2 and UMT5)

FRAME.npz has the images by key, `observation.state` and `task`. Beside each checkpoint NAME it writes NAME.npz, with
the chunk in physical units and the text's context, and NAME_again, the checkpoint as LeRobot saves it.
"""

import sys

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference


def main(frame: str, checkpoints: list[str]) -> None:
    """See above."""
    torch.set_num_threads(1)
    given = dict(np.load(frame))
    task = str(given.pop("task"))
    for checkpoint in checkpoints:
        config = PreTrainedConfig.from_pretrained(checkpoint)
        policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config, strict=True)
        before, after = make_pre_post_processors(config, checkpoint)
        batch = before(prepare_observation_for_inference(dict(given), torch.device("cpu"), task))
        actions = after(policy.predict_action_chunk(batch)).squeeze(0)
        context, mask = policy.model.encode_prompt(config.prompt_template.format(task=task))
        np.savez(f"{checkpoint}.npz", actions=actions.numpy(), context=context[0].numpy(), mask=mask[0].numpy())
        for part in (policy, before, after):
            part.save_pretrained(f"{checkpoint}_again")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
