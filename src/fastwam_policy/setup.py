"""Installs Fast-WAM, its nodes, launch files and command line."""

from glob import glob
from os.path import isdir, isfile

from setuptools import find_packages, setup

NAME = "fastwam_policy"
BUNDLE = "bundles/towel_small"
NODES = ("policy_node", "replay_node", "recorder_node", "monitor_node", "imagination_node")

setup(
    name=NAME,
    version="0.1.0",
    description="Fast-WAM, a world action model, as a ROS 2 policy",
    license="MIT",
    maintainer="Fast-WAM for R1 Lite maintainers",
    maintainer_email="maintainers@fastwam.invalid",
    python_requires=">=3.10",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed", "reports/templates/*", "model/*.json"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", [f"config/{name}.yaml" for name in (*NODES, "processes", "real", "sim", "replay")]),
        (f"share/{NAME}/config", ["config/loopback.xml"]),
        (f"share/{NAME}/config/policies", glob("config/policies/*.yaml")),
        (f"share/{NAME}/config/rviz", ["config/rviz/towel_fold.rviz"]),
        (f"share/{NAME}/bags/towel_fold_sample", glob("bags/towel_fold_sample/*")),
        (f"share/{NAME}/{BUNDLE}", [path for path in glob(f"{BUNDLE}/*") if isfile(path)]),
        *((f"share/{NAME}/{folder}", glob(f"{folder}/*")) for folder in glob(f"{BUNDLE}/*") if isdir(folder)),
    ],
    install_requires=[
        "setuptools", "accelerate", "argcomplete", "av", "diffusers", "fsspec", "httpx", "jinja2", "matplotlib",
        "msgpack", "numpy", "opencv-python-headless", "pillow", "prometheus-client", "psutil", "pyarrow",
        "pydantic>=2", "pyyaml", "pyzmq", "rich", "rosbags", "safetensors", "scipy", "simplejpeg", "tensorboard",
        "torch>=2.4", "transformers", "websockets>=15", "youplot",
    ],
    extras_require={
        "lora": ["peft>=0.21"],  # for trained: lora
        "ray": ["ray>=2.60"],  # for --ray; older ones listen on all interfaces
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            *(f"{node} = {NAME}.nodes.{node}:main" for node in NODES),
            f"fastwam = {NAME}.cli.main:main",
        ],
        "fastwam_policy.policies": [
            f"{scheme} = {NAME}.policies.remote.client:connect"
            for scheme in ("ws", "wss", "http", "https", "zmq", "tcp")
        ],
    },
)  # fmt: skip
