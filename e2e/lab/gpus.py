"""Makes a kind node advertise GPUs that it does not have."""

from typing import Any

from e2e.lab.archives import Entry, packed
from e2e.lab.errors import LabError
from e2e.lab.paths import HERE

SOURCES = HERE / "images" / "gpus"
UNIT = "advertise-gpus.service"


def advertise_gpus(node: Any, count: int) -> None:
    """Installs a unit inside the node, so the advert outlives restarts of kubelet and node and goes with the node."""
    unit = (SOURCES / UNIT).read_text().replace("COUNT", str(count))
    files = {
        f"etc/systemd/system/{UNIT}": Entry(unit.encode()),
        "usr/local/bin/advertise-gpus": Entry(SOURCES / "advertise-gpus", 0o755),
    }
    node.put_archive("/", packed(files))
    done = node.exec_run(["systemctl", "enable", "--now", UNIT])
    if done.exit_code:
        raise LabError(f"{node.name} does not advertise GPUs: {done.output.decode(errors='replace').strip()}")
