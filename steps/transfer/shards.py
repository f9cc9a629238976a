"""Distribution of the files of one transfer over several processes.

The listing alone decides, so every process computes the same split, also in a later attempt.
"""

from dataclasses import dataclass

from steps.model import Listing, ModelFile


@dataclass(frozen=True)
class Shard:
    """One of `of` processes, by its `number` from 0. It moves its own files only; the task after all shards writes the
    manifest.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"

    def share(self, listing: Listing) -> Listing:
        """The files of this process; none if there are more processes than files."""
        return split(listing, self.of)[self.number]


def split(listing: Listing, count: int) -> tuple[Listing, ...]:
    """Each file to the shard with the fewest bytes, the largest file first. The largest shard has at most a third more
    than in the best split (Graham 1969, https://doi.org/10.1137/0117039).
    """
    shares: list[list[ModelFile]] = [[] for _ in range(count)]
    loads = [0] * count
    for file in sorted(listing.files, key=lambda file: (-file.size, file.path)):
        # Of equal loads the one with fewer files, so that empty files are spread, too.
        lightest = min(range(count), key=lambda number: (loads[number], len(shares[number]), number))
        shares[lightest].append(file)
        loads[lightest] += file.size
    return tuple(Listing.of(share) for share in shares)
