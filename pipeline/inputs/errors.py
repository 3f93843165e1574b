"""Say which input file cannot be parsed and why: the one error that the readers of this package raise for bad bytes."""

from pathlib import PurePosixPath

from manifests.files import FormatError


class BrokenInput(FormatError):
    """The bytes of an input file are not what its kind wants. `file`: its name without folders; `cause`: what is wrong
    with them."""

    def __init__(self, url: str, cause: str) -> None:
        self.file, self.cause = PurePosixPath(url).name, cause
        super().__init__(f"{self.file}: {cause}")
