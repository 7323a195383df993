#!/usr/bin/env bash
# ACT by LeRobot's own trainer on simulated towels, then served: interop/act_towel.sh PYTHON FOLDER EPISODES STEPS
# PYTHON is that of an environment with lerobot[dataset,training], websockets and msgpack. Called again with more steps it
# continues. Ctrl-C ends the server; meanwhile, elsewhere:
#   ./fastwam eval-sim ws://127.0.0.1:8000 --randomization objects --episodes 50 --workers 1
set -euo pipefail
[ $# = 4 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
python=$1 data=$2/data head=$2/head run=$2/act episodes=$3 steps=$4
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# One thread: on a machine with other work, two wait for each other more than they compute.
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

./fastwam collect "$data" --episodes "$episodes" --randomization objects --height 90 --format v3.0 --workers 1

# What the head camera sees alone: each camera more costs as much again, in decoding and in the backbone.
if [ ! -e "$head/meta/info.json" ]; then
  "$python" -m lerobot.scripts.lerobot_edit_dataset --repo_id=local/towel --root="$data" --new_repo_id=local/head --new_root="$head" \
    --operation.type=remove_feature \
    --operation.feature_names='["observation.images.left_wrist_rgb", "observation.images.right_wrist_rgb"]'
fi

last=$run/checkpoints/last/pretrained_model
if [ -e "$last" ]; then
  options=(--config_path="$last/train_config.json" --resume=true)
else
  rm -rf "$run"  # of a run that ended before its first checkpoint
  # From scratch: no weights of a backbone are downloaded. Small, and in bfloat16, for a CPU; no VAE, since the expert does one thing.
  options=(
    --dataset.repo_id=local/head --dataset.root="$head" --dataset.video_backend=pyav --output_dir="$run"
    --policy.type=act --policy.device=cpu --policy.push_to_hub=false --policy.pretrained_backbone_weights=null
    --policy.chunk_size=32 --policy.n_action_steps=32 --policy.dim_model=256 --policy.dim_feedforward=1024
    --policy.n_encoder_layers=2 --policy.use_vae=false --policy.use_amp=true --batch_size=16 --num_workers=1 --log_freq=20 --save_freq=200 --seed=0
    --use_policy_training_preset=false --optimizer.type=adamw --optimizer.lr=3e-4 --optimizer.weight_decay=1e-4
    --scheduler.type=cosine_decay_with_warmup --scheduler.peak_lr=3e-4 --scheduler.decay_lr=1e-5
    --scheduler.num_warmup_steps=100 --scheduler.num_decay_steps="$steps"
  )
fi
trained=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["step"])' "$last/../training_state/training_step.json" 2>/dev/null || echo 0)
[ "$trained" -ge "$steps" ] || "$python" -m lerobot.scripts.lerobot_train "${options[@]}" --steps="$steps"
exec "$python" examples/serve_lerobot.py "$last" --dataset "$head"
