#!/usr/bin/env bash
# ACT by LeRobot's own trainer on simulated towels, then served: interop/act_towel.sh PYTHON FOLDER EPISODES STEPS
# PYTHON is that of an environment with lerobot[dataset,training], websockets and msgpack. Called again with more episodes
# or steps it continues. Ctrl-C ends the server; meanwhile, elsewhere:
#   ./fastwam eval-sim ws://127.0.0.1:8000 --episodes 50
set -euo pipefail
[ $# = 4 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
python=$1 data=$2/data run=$2/act episodes=$3 steps=$4
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./fastwam collect "$data" --episodes "$episodes" --height 90 --format v3.0

last=$run/checkpoints/last/pretrained_model
if [ -e "$last" ]; then
  options=(--config_path="$last/train_config.json" --resume=true)
else
  rm -rf "$run"  # of a run that ended before its first checkpoint
  # From scratch: no weights of a backbone are downloaded. Small, for a CPU.
  options=(
    --dataset.repo_id=local/towel --dataset.root="$data" --dataset.video_backend=pyav --output_dir="$run"
    --policy.type=act --policy.device=cpu --policy.push_to_hub=false --policy.pretrained_backbone_weights=null
    --policy.chunk_size=32 --policy.n_action_steps=32 --policy.dim_model=256 --policy.dim_feedforward=1024
    --policy.n_encoder_layers=3 --policy.optimizer_lr=1e-4 --policy.optimizer_lr_backbone=1e-4
    --batch_size=8 --num_workers=1 --log_freq=50 --save_freq=1000 --seed=0
  )
fi
# One thread: on a machine with other work, two wait for each other more than they compute.
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
trained=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["step"])' "$last/../training_state/training_step.json" 2>/dev/null || echo 0)
[ "$trained" -ge "$steps" ] || "$python" -m lerobot.scripts.lerobot_train "${options[@]}" --steps="$steps"
exec "$python" examples/serve_lerobot.py "$last" --dataset "$data"
