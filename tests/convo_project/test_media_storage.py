"""The place in which the files of messages are kept, by the environment."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from convo_project import media


def test_files_are_private_and_in_a_folder_by_default():
    entry = media.storage("FILES")
    assert entry["BACKEND"].endswith("FileSystemStorage")
    assert entry["OPTIONS"]["file_permissions_mode"] == 0o600


def test_s3_needs_a_bucket_and_takes_what_is_given(monkeypatch):
    monkeypatch.setenv("MEDIA_S3_BUCKET", "")
    with pytest.raises(ImproperlyConfigured, match="MEDIA_S3_BUCKET"):
        media.storage("S3")
    monkeypatch.setenv("MEDIA_S3_BUCKET", "files")
    monkeypatch.setenv("MEDIA_S3_ENDPOINT", "https://s3.example/")
    options = media.storage("S3")["OPTIONS"]
    assert (options["bucket_name"], options["endpoint_url"]) == ("files", "https://s3.example")
    assert options["file_overwrite"] is True
