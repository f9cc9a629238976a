from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.model import Listing, ModelFile, UnsafePathError, refuse_unsafe

SHA = "a" * 64

# Pieces from which both plain and hostile paths are made.
PIECES = st.sampled_from(
    ["a", "model.safetensors", "..", ".", "...", "", " ", "~", "/", "//", "\\", "\0", "\n", "ü", ".slipway", "C:"]
)
PATHS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=6).map("/".join), st.lists(PIECES).map("".join))


def is_refused(path: str) -> bool:
    try:
        refuse_unsafe(path)
    except UnsafePathError:
        return True
    return False


@given(PATHS)
def test_a_path_that_is_let_through_stays_inside_its_folder_and_is_written_as_it_stands(path: str) -> None:
    if is_refused(path):
        return
    pure = PurePosixPath("/model") / path
    assert pure.is_relative_to("/model")
    assert ".." not in pure.parts
    assert str(pure) == f"/model/{path}"
    assert "\\" not in path
    assert "\0" not in path


@given(st.lists(st.text(alphabet="abcXYZ019._- ü", min_size=1, max_size=8), min_size=1, max_size=5))
def test_plain_names_are_let_through(names: list[str]) -> None:
    if not any(name in (".", "..") for name in names):
        refuse_unsafe("/".join(names))


@given(PATHS, PATHS)
def test_a_step_up_is_refused_wherever_it_stands(before: str, after: str) -> None:
    assert is_refused(f"{before}/../{after}")


@given(PATHS)
def test_an_absolute_path_and_a_home_folder_are_refused(path: str) -> None:
    assert is_refused(f"/{path}")
    assert is_refused(f"~{path}")


@given(PATHS)
def test_no_file_of_a_model_can_pose_as_our_own_records(path: str) -> None:
    assert is_refused(f".slipway/{path}")


@pytest.mark.parametrize("path", ["", ".", "..", "a/", "a//b", "./a", "a/./b", "a\\b", "a\nb", "a\0b", "\x1b[31m"])
def test_a_path_that_could_not_be_written_as_it_stands_is_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        ModelFile(path, 1, SHA)


FILES = st.lists(
    st.builds(
        ModelFile,
        st.text(alphabet="abcdef", min_size=1, max_size=6),
        st.integers(0, 10**12),
        st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    ),
    unique_by=lambda file: file.path,
)


@given(FILES, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_the_listing(files: list[ModelFile], random: object) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Listing.of(shuffled).digest == Listing.of(files).digest


@given(FILES.filter(bool))
def test_every_field_of_every_file_counts_for_the_digest(files: list[ModelFile]) -> None:
    first, *rest = files
    digest = Listing.of(files).digest
    other_sha = ("0" if first.sha256[0] != "0" else "1") + first.sha256[1:]
    for changed in (
        ModelFile(first.path + "x", first.size, first.sha256),
        ModelFile(first.path, first.size + 1, first.sha256),
        ModelFile(first.path, first.size, other_sha),
    ):
        assert Listing.of([changed, *rest]).digest != digest
    assert Listing.of(rest).digest != digest
