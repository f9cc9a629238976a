"""An OSS-compatible bucket: objects, multipart uploads, signatures and errors."""
