"""Print what pyproject.toml asks for, a requirement per line: `python needed.py EXTRA…`, beside the file itself.

An image then has the dependencies in a layer of their own, which is built again only when they change.
"""

import sys
import tomllib
from pathlib import Path


def needed(pyproject: str, extras: list[str]) -> list[str]:
    """The requirements of the project and of these extras. Raises KeyError for an extra there is not."""
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(one for extra in extras for one in optional[extra])]


if __name__ == "__main__":
    print(*needed(Path("pyproject.toml").read_text(), sys.argv[1:]), sep="\n")
