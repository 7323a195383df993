"""Installs the simulated robot."""

from setuptools import find_packages, setup

NAME = "galaxea_r1lite_sim"

setup(
    name=NAME,
    version="0.1.0",
    description="A simulated Galaxea R1 Lite with a towel, on the robot's own topics",
    license="MIT",
    maintainer="Fast-WAM for R1 Lite maintainers",
    maintainer_email="maintainers@fastwam.invalid",
    python_requires=">=3.10",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", ["config/sim_node.yaml"]),
    ],
    install_requires=["setuptools", "mujoco", "numba", "numpy", "opencv-python-headless"],
    zip_safe=False,
    entry_points={"console_scripts": [f"sim_node = {NAME}.nodes.sim_node:main"]},
)
