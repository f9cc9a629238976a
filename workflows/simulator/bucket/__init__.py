"""An OSS-compatible bucket for local runs and tests."""

from workflows.simulator.bucket.index import FolderUnusableError
from workflows.simulator.bucket.keys import Key, KeyRing
from workflows.simulator.bucket.service import Bucket
from workflows.simulator.bucket.trouble import WRONG_CRC

__all__ = ["WRONG_CRC", "Bucket", "FolderUnusableError", "Key", "KeyRing"]
