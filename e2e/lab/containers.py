"""The lab's own containers, each known by the part of the lab that it is."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from docker.errors import NotFound

from e2e.lab.archives import Entry, packed
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.network import FIXED, LABEL, Network

PART = "dev.tidegate.part"


class Containers:
    """Makes, finds and removes the containers of one lab."""

    def __init__(self, engine: Engine, lab: str, network: Network) -> None:
        self._engine = engine
        self._lab = lab
        self._network = network

    def run(
        self,
        part: str,
        image: str,
        *,
        files: Mapping[str, Entry] | None = None,
        command: Sequence[str] | None = None,
        hostname: str | None = None,
        **options: Any,
    ) -> None:
        """Starts a part, after `files` (absolute paths) were laid into it. Options are docker-py's host options."""
        api = self._engine.client.api
        address = self._network.address(part) if part in FIXED else None
        user, environment = options.pop("user", None), options.pop("environment", None)
        made = api.create_container(
            image,
            command=list(command) if command else None,
            name=self.name(part),
            hostname=hostname or part,
            user=user,
            environment=environment,
            labels={LABEL: self._lab, PART: part},
            host_config=api.create_host_config(network_mode=self._network.name, **options),
            networking_config=api.create_networking_config(
                {self._network.name: api.create_endpoint_config(ipv4_address=address, aliases=[hostname or part])}
            ),
        )
        if files:
            api.put_archive(made["Id"], "/", packed({name.lstrip("/"): entry for name, entry in files.items()}))
        api.start(made["Id"])

    def name(self, part: str) -> str:
        return f"{self._lab}-{part}"

    def get(self, part: str) -> Any:
        """The part's container; a part of a kind cluster is found by its own name."""
        for name in (self.name(part), part):
            try:
                found = self._engine.client.containers.get(name)
            except NotFound:
                continue
            if found.labels.get(LABEL) == self._lab or found.labels.get("io.x-k8s.kind.cluster") == self._lab:
                return found
        raise LabError(f"the lab {self._lab} has no part {part}")

    def exists(self, part: str) -> bool:
        try:
            self.get(part)
        except LabError:
            return False
        return True

    def check_running(self, *parts: str) -> None:
        """LabError with a part's last words if it ended."""
        for part in parts:
            container = self.get(part)
            if container.status in ("exited", "dead"):
                words = container.logs(tail=3).decode(errors="replace").split("\n")
                raise LabError(f"{container.name} ended: {' / '.join(filter(None, words)) or 'no word'}")

    def parts(self) -> dict[str, str]:
        """Each part of ours with its state."""
        found = self._engine.client.containers.list(all=True, filters={"label": f"{LABEL}={self._lab}"})
        return {container.labels[PART]: container.status for container in found}

    def remove(self, part: str) -> None:
        self.get(part).remove(force=True, v=True)

    def remove_all(self) -> None:
        for part in self.parts():
            self.remove(part)

    def logs(self, part: str) -> str:
        text: bytes = self.get(part).logs(timestamps=True)
        return text.decode(errors="replace")


def wait_until(what: str, ready: Callable[[], bool], *, seconds: float, pause: float = 0.2) -> None:
    """Looks until it is so; LabError names what did not come."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(pause)
