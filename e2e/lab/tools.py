"""Builds the programs that the lab needs from pinned Go modules, once, into the cache."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.paths import HERE, cache_dir, content_key, only_maker
from e2e.lab.shell import run

KUBERNETES = "v1.36.3"


@dataclass(frozen=True)
class Family:
    """The programs that one go.mod pins: its `tool` lines say which."""

    name: str
    version: str = ""
    tags: str = ""
    packages: str = "tool"

    @property
    def source(self) -> Path:
        return HERE / "go" / self.name

    @property
    def folder(self) -> Path:
        """Where its programs lie once they are built."""
        return cache_dir() / "bin" / f"{self.name}-{content_key(self.source, self.packages, *self._flags())}"

    def _flags(self) -> list[str]:
        link = "-s -w"
        if self.version:
            major, minor, _ = self.version.lstrip("v").split(".")
            values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
            link += "".join(f" -X k8s.io/component-base/version.{name}={value}" for name, value in values.items())
        return ["-trimpath", "-mod=readonly", "-ldflags", link, "-tags", self.tags]

    def build(self, log: Path) -> Path:
        """Builds what is missing and says where it lies."""
        target = self.folder
        with only_maker(target):
            if not target.is_dir():
                self._build(target, log)
        return target

    def _build(self, target: Path, log: Path) -> None:
        unfinished = target.with_name(f"{target.name}.unfinished")
        # static programs: the images made of them need no library
        env = {"CGO_ENABLED": "0", "GOWORK": "off"}
        args = ["go", "build", *self._flags(), "-o", f"{unfinished}/", self.packages]
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            run(args, cwd=self.source, env=env, log=log)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def module_folder(self, module: str) -> Path:
        """The unpacked source of a module that the family pins."""
        answer = run(["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], cwd=self.source)
        folder = Path(answer.strip() or "/nonexistent")
        if not folder.is_dir():
            raise LabError(f"Go has no unpacked copy of {module}")
        return folder


KIND = Family("kind")
KWOK = Family("kwok")
HELM = Family("helm")
KUBE = Family("kubernetes", version=KUBERNETES)
KUBECTL = Family("kubernetes", version=KUBERNETES, packages="k8s.io/kubernetes/cmd/kubectl")
ETCD = Family("etcd")
COREDNS = Family("coredns")
CONTAINERD = Family("containerd", tags="no_btrfs,no_devmapper,no_zfs")
CRI_TOOLS = Family("cri-tools")
OWN = Family("own", packages="./...")

HOST_TOOLS = {"kind": KIND, "kubectl": KUBECTL, "helm": HELM, "kwok": KWOK}
"""The programs that people and tests call on the host, and what builds them."""


def tool(name: str) -> Path:
    """The path of a host tool; it must have been built."""
    path = HOST_TOOLS[name].folder / name
    if not path.exists():
        raise LabError(f"{name} is not built yet: bring a lab up first")
    return path
