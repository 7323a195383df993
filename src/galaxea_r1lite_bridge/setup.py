"""Installs the bridge, the robot's description and its configuration."""

from setuptools import find_packages, setup

NAME = "galaxea_r1lite_bridge"
NODES = ("bridge_node", "emulator_node")

setup(
    name=NAME,
    version="0.1.0",
    description="Executes action chunks on the Galaxea R1 Lite under safety limits",
    license="MIT",
    maintainer="Fast-WAM for R1 Lite maintainers",
    maintainer_email="maintainers@fastwam.invalid",
    python_requires=">=3.10",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", [f"config/{name}.yaml" for name in ("r1lite", *NODES)]),
        (f"share/{NAME}/urdf", ["urdf/r1lite.urdf"]),
    ],
    install_requires=["setuptools", "numpy", "opencv-python-headless", "pydantic>=2", "pyyaml"],
    zip_safe=False,
    entry_points={"console_scripts": [f"{node} = {NAME}.nodes.{node}:main" for node in NODES]},
)
