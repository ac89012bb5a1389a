"""What the fields that choose a file can choose from, here and now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.artifacts.input_files import InputFiles
from atoll.errors import InvalidRequest, NotFound
from atoll.models.catalogue import ModelCatalogue


@dataclass(frozen=True)
class FileChoices:
    """Models from the catalogue, pictures from the inputs: the `Choices` of a graph."""

    catalogue: ModelCatalogue
    inputs: InputFiles

    def names(self, kind: str) -> Sequence[str]:
        return self.inputs.names() if kind == "inputs" else self.catalogue.names(kind)

    def has(self, kind: str, name: str) -> bool:
        """Whether `name` can be used, which may be true of more than is listed."""
        try:
            if kind == "inputs":
                self.inputs.path(name)
            else:
                self.catalogue.resolve(kind, name)
        except (InvalidRequest, NotFound):
            return False
        return True
