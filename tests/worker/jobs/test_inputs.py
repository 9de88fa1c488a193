"""Input images come from allowed places only, and are checked before anything is computed."""

import base64
import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from recipes.recipe import ImageItem, Recipe, TextItem
from storage.objects.memory import MemoryStore
from worker.jobs.inputs import MAX_BYTES, InputError, Sources, with_references


def png(colour: str = "red", size: tuple[int, int] = (4, 3)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def recipe(*references: str, sha256: str | None = None) -> Recipe:
    images = tuple(ImageItem(image=reference, sha256=sha256) for reference in references)
    return Recipe(name="test", context=(TextItem(text="Look"), *images))


def test_images_come_from_the_folder_from_s3_and_from_the_recipe_itself(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png("red"))
    store = MemoryStore("pictures")
    store.put("a/b.png", png("green"), content_type="image/png")
    uri = "data:image/png;base64," + base64.b64encode(png("blue")).decode()
    sources = Sources(folder=tmp_path, store=store, buckets=["pictures"])
    images = sources.fetch(recipe("photo.png", "s3://pictures/a/b.png", uri))
    assert [image.decode().getpixel((0, 0)) for image in images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
    assert images[0].sha256 == hashlib.sha256(png("red")).hexdigest()


def test_references_are_replaced_in_order_and_pinned(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(png("red" if name == "one.png" else "blue"))
    given = recipe("one.png", "two.png")
    images = Sources(folder=tmp_path).fetch(given)
    replaced = with_references(given, images, ["inputs/000.png", "inputs/001.png"])
    assert replaced.context == (
        TextItem(text="Look"),
        ImageItem(image="inputs/000.png", sha256=images[0].sha256),
        ImageItem(image="inputs/001.png", sha256=images[1].sha256),
    )


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.jpg", exif=exif)
    (image,) = Sources(folder=tmp_path).fetch(recipe("photo.jpg"))
    assert image.decode().size == (4, 6)


def test_a_wrong_pin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    with pytest.raises(InputError, match=r"context\[1\].image: its SHA-256 is [0-9a-f]{64}, the recipe pins 0000"):
        Sources(folder=tmp_path).fetch(recipe("photo.png", sha256="0" * 64))


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "recipes"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    for reference in ("../secret.png", "link.png", str(tmp_path / "secret.png")):
        with pytest.raises(InputError, match=r"(outside|leaves) the recipe's folder|path is absolute"):
            Sources(folder=inside).fetch(recipe(reference))


@pytest.mark.parametrize("reference", ["http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd"])
def test_no_address_is_fetched(reference: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: "):
        Sources(folder=tmp_path).fetch(recipe(reference))


def test_files_need_a_folder_and_buckets_must_be_allowed() -> None:
    with pytest.raises(InputError, match="this recipe has no folder"):
        Sources().fetch(recipe("photo.png"))
    with pytest.raises(InputError, match="no S3 store is configured"):
        Sources().fetch(recipe("s3://pictures/a.png"))
    with pytest.raises(InputError, match="bucket 'other-bucket' is not allowed; allowed: pictures"):
        Sources(store=MemoryStore("pictures"), buckets=["pictures"]).fetch(recipe("s3://other-bucket/a.png"))
    with pytest.raises(InputError, match="can't be read"):
        Sources(store=MemoryStore("pictures"), buckets=["pictures"]).fetch(recipe("s3://pictures/missing.png"))


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header claims a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a readable image; allowed: PNG, JPEG, WebP"),
        (b"GIF89a" + bytes(20), "is not a readable image"),
        (png()[:50], "is a damaged image"),
        (bomb(20_000, 20_000), "pixels"),
        (bomb(9_000, 9_000), "is 9000 x 9000 pixels; at most 64,000,000"),
        (bytes(MAX_BYTES + 1), "at most 33,554,432 are allowed"),
    ],
)
def test_what_is_no_usable_image_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(data)
    with pytest.raises(InputError, match=message):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"context\[1\].image: .*photo.png can't be read: No such file"):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_photo_whose_orientation_cannot_be_read_is_refused_before_the_run(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.png", exif=exif)
    content = bytearray((tmp_path / "photo.png").read_bytes())
    start = content.index(b"eXIf") + 4
    content[start : start + 4] = b"none"
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    content[start + length : start + length + 4] = zlib.crc32(content[start - 4 : start + length]).to_bytes(4, "big")
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(InputError, match=r"context\[1\].image: is a damaged image: not a TIFF file"):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_name_that_leads_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"context\[1\].image: 'loop/photo.png' can't be resolved"):
        Sources(folder=tmp_path).fetch(recipe("loop/photo.png"))
