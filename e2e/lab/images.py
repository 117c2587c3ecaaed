"""Builds the lab's images, once each: a tag is the content it was made from."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, BuildError, ImageNotFound

from e2e.lab import machine_settings
from e2e.lab.archives import Entry, archive, folder_entries, packed
from e2e.lab.debian import install
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.paths import HERE, cache_dir, content_key, only_maker
from e2e.lab.progress import Progress
from e2e.lab.shell import run

SOURCES = HERE / "images"
RECIPE = "1"
"""Raised when the way a base is bootstrapped changes."""


class Images:
    """The images of one engine. Calls for the same image from several threads build it once."""

    def __init__(self, engine: Engine, progress: Progress, logs: Path) -> None:
        self._engine = engine
        self.progress = progress
        self.logs = logs
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._registry: bool | None = None

    @property
    def registry(self) -> bool:
        """Whether this engine gets images from elsewhere: it is tried once, with the base that everything needs."""
        with self._locks["registry"]:
            if self._registry is None:
                self._registry = self.present("debian:trixie") or self._pull("debian:trixie")
                if not self._registry:
                    self.progress.note("no image registry answers: images are built from Debian packages")
            return self._registry

    def present(self, tag: str) -> bool:
        try:
            self._engine.client.images.get(tag)
        except ImageNotFound:
            return False
        return True

    def _pull(self, tag: str) -> bool:
        try:
            self._engine.client.images.pull(tag)
        except APIError:
            return False
        return True

    def base(self, suite: str) -> str:
        """A minimal Debian that reaches packages as this machine does."""
        settings = machine_settings.files()
        key = content_key(RECIPE, suite, packed(settings), SOURCES / "machine")
        tag = f"tidegate-lab/base:{suite}-{key}"
        with self._locks[tag]:
            if not self.present(tag):
                if self.registry:
                    plain = f"debian:{suite}"
                    if not self.present(plain):
                        self._pull(plain)
                else:
                    plain = self._bootstrap(suite)
                if settings:
                    context = {f"settings/{name}": entry for name, entry in settings.items()}
                    self._build(tag, context | folder_entries(SOURCES / "machine"), {"BASE": plain})
                else:
                    self._engine.client.images.get(plain).tag(tag)
        return tag

    def _bootstrap(self, suite: str) -> str:
        """A minimal Debian from its packages alone."""
        install(mmdebstrap="mmdebstrap")
        repository, tag = "tidegate-lab/bootstrap", f"{suite}-{RECIPE}"
        if self.present(f"{repository}:{tag}"):
            return f"{repository}:{tag}"
        with self.progress.step(f"Debian {suite}"):
            tar = self.logs / f"{suite}.tar"
            options = [f"--aptopt={line.rstrip(';')}" for line in machine_settings.apt_options()]
            left_out = ("doc", "man", "locale", "info")
            options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in left_out]
            mirror = machine_settings.debian_mirror()
            where = [suite, str(tar)] + ([mirror] if mirror else [])
            try:
                run(["mmdebstrap", "--quiet", "--variant=minbase", *options, *where], log=self.logs / "images.log")
                self._engine.client.api.import_image_from_file(str(tar), repository=repository, tag=tag)
            finally:
                tar.unlink(missing_ok=True)
        return f"{repository}:{tag}"

    def build(
        self, name: str, suite: str, *, extra: Callable[[], Mapping[str, Entry]] | None = None, key: str = ""
    ) -> str:
        """The image of `images/NAME/Dockerfile` on a Debian suite.

        `extra` gives more files for its context; `key` stands for them, so that they are made only when needed.
        """
        base = self.base(suite)
        tag = f"tidegate-lab/{name}:{content_key(SOURCES / name, base, key)}"
        with self._locks[tag]:
            if not self.present(tag):
                with self.progress.step(f"image {name} on {suite}"):
                    self._build(tag, folder_entries(SOURCES / name) | dict(extra() if extra else {}), {"BASE": base})
        return tag

    def build_project(self, folder: Path, tag: str) -> None:
        """The image of a project's own Dockerfile; layers that did not change are taken from the engine's cache."""
        with self.progress.step(f"image {tag}"):
            base = self.base("trixie")
            run(
                ["docker", "build", "--network", "host", "--build-arg", f"BASE={base}", "--tag", tag, folder],
                env=self._engine.environment | {"DOCKER_BUILDKIT": "0"},
                log=self.logs / "images.log",
            )

    def single_file(self, tag: str, name: str, program: Path) -> None:
        """An image that holds one static program and starts it."""
        repository, _, version = tag.rpartition(":")
        self._engine.client.api.import_image_from_data(
            packed({f"usr/local/bin/{name}": Entry(program, 0o755)}),
            repository=repository,
            tag=version,
            changes=["ENV PATH=/usr/local/bin", f'ENTRYPOINT ["/usr/local/bin/{name}"]'],
        )

    def tag(self, image: str, tag: str) -> None:
        """Gives an image one more name."""
        self._engine.client.images.get(image).tag(tag)

    def archive(self, purpose: str, tags: list[str]) -> Path:
        """The images in one file of the cache; it is written anew only when one of them changed."""
        ids = [str(self._engine.client.images.get(tag).id) for tag in tags]
        folder = cache_dir() / "archives"
        target = folder / f"{purpose}-{content_key(*tags, *ids)}.tar"
        with only_maker(folder / purpose):
            if not target.exists():
                self.save(tags, target)
            target.touch()
            # the newest before this one may be on its way into another lab
            for old in sorted(folder.glob(f"{purpose}-*.tar"), key=lambda file: file.stat().st_mtime)[:-2]:
                old.unlink()
        return target

    def save(self, tags: list[str], target: Path) -> None:
        """Writes images into one file, which is there whole or not at all."""
        unfinished = target.with_name(f"{target.name}.unfinished")
        try:
            run(["docker", "save", "--output", unfinished, *tags], env=self._engine.environment)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def _build(self, tag: str, context: Mapping[str, Entry], args: dict[str, str]) -> None:
        log = self.logs / f"image-{tag.replace('/', '-').replace(':', '-')}.log"
        try:
            with archive(context) as content:
                _, output = self._engine.client.images.build(
                    fileobj=content,
                    custom_context=True,
                    tag=tag,
                    buildargs=args,
                    network_mode="host",
                    rm=True,
                    forcerm=True,
                )
        except BuildError as error:
            log.write_text("".join(_text(line) for line in error.build_log))
            raise LabError(f"the image {tag} could not be built: {error.msg} (all of it in {log})") from None
        log.write_text("".join(_text(line) for line in output))


def _text(line: dict[str, Any]) -> str:
    return str(line.get("stream") or line.get("error") or (json.dumps(line) + "\n" if "status" in line else ""))
