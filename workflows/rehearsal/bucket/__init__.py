"""An OSS-compatible bucket for local runs and tests."""

from workflows.rehearsal.bucket.index import FolderUnusableError
from workflows.rehearsal.bucket.keys import Key, KeyRing
from workflows.rehearsal.bucket.service import Bucket
from workflows.rehearsal.bucket.trouble import WRONG_CRC

__all__ = ["WRONG_CRC", "Bucket", "FolderUnusableError", "Key", "KeyRing"]
