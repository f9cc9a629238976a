"""The stored progress of one file, from which another process on another host continues."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steps.model import ModelFile


@dataclass(frozen=True)
class ResumePoint:
    """The leading parts of a file that are stored and hashed; later parts are moved again."""

    part_size: int  # bytes
    parts: int  # count
    sha256_state: str  # see `steps.transfer.hashing`; empty where it cannot be saved
    crc64: int  # of those parts


class ResumeRecord(BaseModel):
    """A resume point and its file, as JSON; `upload` and `etags` are for uploads to OSS only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    schema_name: str = "slipway.transfer/v1"
    path: str
    sha256: str
    size: int
    part_size: int = Field(ge=1)
    parts: int = Field(ge=0)
    sha256_state: str = Field(pattern=r"^([0-9a-f]{64})?$")
    crc64: str = Field(pattern=r"^[0-9]{1,20}$")
    upload: str = ""  # id of the multipart upload
    etags: str = ""  # SHA-256 over the etags of the leading parts, compared with those of ListParts

    @classmethod
    def of(cls, file: ModelFile, point: ResumePoint, *, upload: str = "", etags: str = "") -> "ResumeRecord":
        return cls(
            path=file.path,
            sha256=file.sha256,
            size=file.size,
            part_size=point.part_size,
            parts=point.parts,
            sha256_state=point.sha256_state,
            crc64=str(point.crc64),
            upload=upload,
            etags=etags,
        )

    @classmethod
    def decode(cls, body: bytes | None, file: ModelFile) -> "ResumeRecord | None":
        """None for another file or an unreadable record, such as one that was cut off: the file starts over."""
        try:
            record = cls.model_validate_json(body or b"")
        except ValidationError:
            return None
        expected = (cls.model_fields["schema_name"].default, file.path, file.sha256, file.size)
        found = (record.schema_name, record.path, record.sha256, record.size)
        return record if found == expected else None

    @property
    def point(self) -> ResumePoint:
        return ResumePoint(self.part_size, self.parts, self.sha256_state, int(self.crc64))

    @property
    def complete(self) -> bool:
        """Every part is stored, and the SHA-256 was correct: only Complete is missing."""
        return self.parts * self.part_size >= self.size

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode()
