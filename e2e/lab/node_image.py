"""Builds the image of kind's nodes, for machines where the stock image cannot be had."""

from collections.abc import Mapping
from pathlib import Path

from e2e.lab import tools
from e2e.lab.archives import Entry, folder_entries
from e2e.lab.images import SOURCES, Images
from e2e.lab.paths import content_key, only_maker
from e2e.lab.tools import CONTAINERD, COREDNS, CRI_TOOLS, ETCD, KIND, KUBE, OWN

SUITE = "bookworm"
"""Its systemd is the last of Debian's that boots on cgroup v1."""

REPOSITORY = "localhost/kube"
"""Where kubeadm is told to find the images of the cluster's own components."""

COMPONENTS = {
    f"kube-apiserver:{tools.KUBERNETES}": (KUBE, "kube-apiserver", "kube-apiserver"),
    f"kube-controller-manager:{tools.KUBERNETES}": (KUBE, "kube-controller-manager", "kube-controller-manager"),
    f"kube-scheduler:{tools.KUBERNETES}": (KUBE, "kube-scheduler", "kube-scheduler"),
    "etcd:3.6.8-0": (ETCD, "server", "etcd"),
    "coredns:v1.14.2": (COREDNS, "coredns", "coredns"),
    "pause:lab": (OWN, "pause", "pause"),
}
"""Image of each static component: the family that builds it, the program's name there, its name in the image."""

FAMILIES = (KIND, OWN, KUBE, ETCD, COREDNS, CONTAINERD, CRI_TOOLS)


def build_node_image(images: Images, logs: Path) -> str:
    """The tag of a node image for this version of Kubernetes; all that goes into it is built if it is not there."""
    sources = [family.source for family in FAMILIES]
    key = content_key(tools.KUBERNETES, *sources, SOURCES / "kube-proxy")
    return images.build("node", SUITE, extra=lambda: _context(images, logs), key=key)


def _context(images: Images, logs: Path) -> Mapping[str, Entry]:
    for family in FAMILIES:
        family.build(logs / "tools.log")
    archive = KUBE.folder.parent / "components.tar"
    with only_maker(archive):
        _save_components(images, archive)
    kind = KIND.module_folder("sigs.k8s.io/kind") / "images" / "base" / "files"
    # what belongs to features that are not used here is left out with its README
    context = {f"kind/{name}": entry for name, entry in folder_entries(kind).items() if not name.endswith("README.txt")}
    context["kind/kind/version"] = Entry(tools.KUBERNETES.encode())
    context["images.tar"] = Entry(archive)
    for program in ("kubelet", "kubeadm", "kubectl"):
        context[f"bin/{program}"] = Entry(KUBE.folder / program, 0o755)
    for family in (CONTAINERD, CRI_TOOLS):
        context |= folder_entries(family.folder, "local-bin/")
    return context


def _save_components(images: Images, target: Path) -> None:
    """One archive with the images that a cluster runs."""
    for image, (family, program, name) in COMPONENTS.items():
        images.single_file(f"{REPOSITORY}/{image}", name, family.folder / program)
    proxy = images.build(
        "kube-proxy",
        SUITE,
        extra=lambda: {"kube-proxy": Entry(KUBE.folder / "kube-proxy", 0o755)},
        key=content_key(KUBE.source),
    )
    proxy_tag = f"{REPOSITORY}/kube-proxy:{tools.KUBERNETES}"
    images.tag(proxy, proxy_tag)
    images.save([proxy_tag, *(f"{REPOSITORY}/{image}" for image in COMPONENTS)], target)
