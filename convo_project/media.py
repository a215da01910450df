"""The storage of the files of messages: the folder MEDIA_ROOT, or a bucket of S3."""

from __future__ import annotations

from typing import Any

from convo_project import env


def storage(where: str) -> dict[str, Any]:
    """Return the entry of Django's STORAGES. A file that is stored again replaces the one before.

    where: FILES or S3

    Raises ImproperlyConfigured where S3 has no bucket.
    """
    if where == "S3":
        options: dict[str, Any] = {
            "bucket_name": env.required("MEDIA_S3_BUCKET", "Name the bucket, or leave MEDIA_STORAGE out."),
            "file_overwrite": True,
            "endpoint_url": env.url("MEDIA_S3_ENDPOINT") or None,
            "region_name": env.text("MEDIA_S3_REGION") or None,
            "access_key": env.text("MEDIA_S3_KEY_ID") or None,
            "secret_key": env.text("MEDIA_S3_SECRET_KEY") or None,
        }
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    options = {"allow_overwrite": True, "file_permissions_mode": 0o600, "directory_permissions_mode": 0o700}
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
