"""One Docker network for each lab, with addresses that stay the same over restarts."""

import ipaddress
import zlib
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import IPAMConfig, IPAMPool

from e2e.lab.engine import BRIDGE_PREFIX, Engine
from e2e.lab.errors import LabError

LABEL = "dev.tidegate.lab"
ROOM = ipaddress.IPv4Network("172.28.0.0/16")
FIXED = {"slurmctld": 250, "slurmrestd": 251, "slurmdbd": 252, "prometheus": 253}
"""The last number of the address of each part that others are told about."""


class Network:
    """The network of one lab. Engine and kind give out addresses from its lower half; the fixed ones are above."""

    def __init__(self, engine: Engine, lab: str) -> None:
        self._engine = engine
        self._lab = lab
        self.name = f"tidegate-{lab}"

    @property
    def link(self) -> str:
        """The bridge's name on the host; a link's name has at most 15 characters."""
        return f"{BRIDGE_PREFIX}{zlib.crc32(self._lab.encode()):08x}"

    def ensure(self) -> None:
        if self._find() is not None:
            return
        refused = "all of it is routed elsewhere"
        start = zlib.crc32(self._lab.encode())
        subnets = list(ROOM.subnets(new_prefix=24))
        taken = host_networks(Path("/proc/net/route").read_text())
        for offset in range(len(subnets)):
            subnet = subnets[(start + offset) % len(subnets)]
            if any(subnet.overlaps(other) for other in taken):
                continue
            pool = IPAMPool(subnet=str(subnet), iprange=str(next(subnet.subnets())), gateway=str(subnet[1]))
            try:
                self._engine.client.networks.create(
                    self.name,
                    driver="bridge",
                    ipam=IPAMConfig(pool_configs=[pool]),
                    options={"com.docker.network.bridge.name": self.link},
                    labels={LABEL: self._lab},
                )
                return
            except APIError as error:
                # another network or a route of the host has this one: take the next
                if "overlap" not in str(error):
                    raise LabError(f"the network {self.name} could not be made: {error.explanation}") from None
                refused = str(error.explanation)
        raise LabError(f"no free network of {ROOM}: {refused}")

    def address(self, part: str) -> str:
        found = self._find()
        if found is None:
            raise LabError(f"the network {self.name} is gone: take the lab down and up again")
        subnet = ipaddress.ip_network(found.attrs["IPAM"]["Config"][0]["Subnet"])
        return str(subnet[FIXED[part]])

    def remove(self) -> None:
        found = self._find()
        if found is not None:
            for container in found.attrs.get("Containers") or {}:
                found.disconnect(container, force=True)
            found.remove()

    def _find(self) -> Any:
        try:
            return self._engine.client.networks.get(self.name)
        except NotFound:
            return None


def host_networks(route: str) -> list[ipaddress.IPv4Network]:
    """What /proc/net/route leads to, the default route left out."""
    found = []
    for line in route.splitlines()[1:]:
        fields = line.split()
        # both numbers are printed in the byte order of the machine
        address, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return found
