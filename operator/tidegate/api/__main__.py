"""`python -m tidegate.api [FOLDER]` writes the CustomResourceDefinitions into the folder, by default `crds`."""

import sys
from pathlib import Path

from tidegate.api import crds

for path in crds.write(Path(sys.argv[1] if len(sys.argv) > 1 else "crds")):
    sys.stdout.write(f"{path}\n")
