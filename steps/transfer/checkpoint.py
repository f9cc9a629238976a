"""How far one file is, so that another process on another host can go on."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError


@dataclass(frozen=True)
class Checkpoint:
    """The leading parts of a file that are both stored and hashed; later parts are moved again."""

    part_size: int  # bytes
    parts: int  # how many
    sha256_state: str  # see `steps.transfer.hashing`; empty where it cannot be saved
    crc64: int  # of those parts


class CheckpointRecord(BaseModel):
    """A checkpoint with the path of its file, as JSON; `upload` and `etags` are only for uploads to OSS."""

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
    etags: str = ""  # SHA-256 over the etags of the leading parts: ListParts must show the same ones

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.part_size, self.parts, self.sha256_state, int(self.crc64))

    @property
    def complete(self) -> bool:
        """Every part is stored and hashed, and the SHA-256 was right: only Complete was left to do."""
        return self.parts * self.part_size >= self.size

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


def decode(body: bytes) -> CheckpointRecord | None:
    """None for what is no checkpoint, such as one that was cut off: the file then starts over."""
    try:
        record = CheckpointRecord.model_validate_json(body)
    except ValidationError:
        return None
    return record if record.schema_name == CheckpointRecord.model_fields["schema_name"].default else None
