"""An ObjectStore in a local folder, for `autoseq run`: the same files as in S3, and the same resume."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from storage.errors import InvalidNameError, ObjectExistsError, ObjectNotFoundError, StoreRefusedError


class FolderStore:
    """Objects as files below `root`, written atomically."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        del content_type  # files have none
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreRefusedError(f"{path}: can't be written: {error.strerror or error}") from error
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".") as file:
                file.write(data)
                file.flush()
                if only_if_absent:
                    os.link(file.name, path)  # unlike a rename, fails if the file exists
                else:
                    twin = f"{file.name}-twin"
                    os.link(file.name, twin)
                    Path(twin).replace(path)
        except FileExistsError:
            raise ObjectExistsError(self.address(key)) from None
        except OSError as error:
            raise StoreRefusedError(f"{path}: can't be written: {error.strerror or error}") from error

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise ObjectNotFoundError(self.address(key)) from None
        except OSError as error:
            raise StoreRefusedError(f"{self._path(key)}: can't be read: {error.strerror or error}") from error

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))
        yield from sorted(key for file in files if (key := file.relative_to(self.root).as_posix()).startswith(prefix))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def url(self, key: str) -> str:
        return self._path(key).as_uri()

    def address(self, key: str) -> str:
        return self.url(key)

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        del max_bytes
        raise StoreRefusedError(f"{address}: this store is a local folder without S3")

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root):
            raise InvalidNameError(f"{key!r} is outside {self.root}")
        return path
