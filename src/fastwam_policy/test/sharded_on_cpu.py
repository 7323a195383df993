"""`fastwam` under FSDP on CPUs: torch shards over gloo, but accelerate offers it on accelerators only.

Started by `accelerate launch` with a configuration for FSDP; accelerate then takes the processes for those of GPUs.
"""

import os
import sys

import torch.distributed
from accelerate import DistributedType, PartialState

from fastwam_policy.cli.main import main

if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    status = main(sys.argv[1:])
    torch.distributed.destroy_process_group()
    sys.exit(status)
