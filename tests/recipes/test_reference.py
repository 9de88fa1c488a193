"""Image references are paths, S3 addresses or the image itself, and nothing else."""

import pytest

from recipes.reference import (
    DataReference,
    FileReference,
    ImageReferenceError,
    Reference,
    S3Reference,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("photo.png", FileReference(path="photo.png")),
        ("a/../b c.png", FileReference(path="a/../b c.png")),
        ("..photo.png", FileReference(path="..photo.png")),
        ("s3://my.bucket/a/b c.png", S3Reference(bucket="my.bucket", key="a/b c.png")),
        ("s3://bucket/100%/é..b/a.png", S3Reference(bucket="bucket", key="100%/é..b/a.png")),
        ("data:image/png;base64,aGk=", DataReference(media_type="image/png", content=b"hi")),
        ("data:image/webp;base64,aGk=", DataReference(media_type="image/webp", content=b"hi")),
    ],
)
def test_the_allowed_forms(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://example.org/a.png", "http: URIs are not supported"),
        ("HTTPS://example.org/a.png", "https: URIs are not supported"),
        ("file:///etc/passwd", "file: URIs are not supported"),
        ("gs://bucket/key", "gs: URIs are not supported"),
        ("/etc/photo.png", "the path is absolute"),
        ("//host/photo.png", "the path is absolute"),
        ("../photo.png", "the path leaves the recipe's folder"),
        ("a/../../photo.png", "the path leaves the recipe's folder"),
        ("..", "the path leaves the recipe's folder"),
        (".", "the path is a folder"),
        ("photos/", "the path is a folder"),
        ("a\0b", "the path contains a NUL character"),
        ("s3://bucket", "not of the form s3://bucket/key"),
        ("s3://bucket/", "not of the form s3://bucket/key"),
        ("s3:///key", "not of the form s3://bucket/key"),
        ("s3://Bucket/key", "not of the form s3://bucket/key"),
        (f"s3://bucket/{'é' * 513}", "not of the form s3://bucket/key"),
        ("data:image/gif;base64,aGk=", "the data: URI is not a PNG, JPEG or WebP image in base64"),
        ("data:image/png,abc", "the data: URI is not a PNG, JPEG or WebP image in base64"),
        ("data:image/png;base64,", "the data: URI is not a PNG, JPEG or WebP image in base64"),
        ("data:image/png;base64,a-_=", "the data: URI is not valid base64"),
        ("data:image/png;base64,é", "the data: URI is not valid base64"),
    ],
)
def test_other_forms_say_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ImageReferenceError) as caught:
        parse_reference(text)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    "key",
    [
        *("../a.png", "a/../b.png", "a/./b.png", "a//b.png", "/a.png", "a/", "a\\..\\b.png", "a\nb.png", "a\0.png"),
        *("%2e%2e/a.png", "a%2F..%2Fb.png", "a/%252e%252e/b.png", "a%5C..%5Cb.png", "a%00.png"),
        *("a/\uff0e\uff0e/b.png", "a/\u2025/b.png", "a/%EF%BC%8E%EF%BC%8E/b.png"),
    ],
)
def test_a_key_that_a_server_may_read_as_another_is_refused(key: str) -> None:
    with pytest.raises(ImageReferenceError, match="the key has an empty, "):
        parse_reference(f"s3://bucket/{key}")
