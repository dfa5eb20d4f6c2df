"""The people of a set of pairs, as far as its genuine pairs tell."""

import torch

from arcdist.data.evalsets import PairSet


def genuine_people(pairs: PairSet) -> tuple[list[bytes], torch.Tensor]:
    """Return the distinct images of the genuine pairs, and whom each shows, int64.

    Images are of one person where genuine pairs join them; a person whose pairs share no image counts as several.
    """
    parent: dict[bytes, bytes] = {}

    def root(image: bytes) -> bytes:
        while parent.setdefault(image, image) is not image:
            image = parent[image]
        return image

    for pair in pairs.same.nonzero()[0]:
        parent[root(pairs.images[2 * pair])] = root(pairs.images[2 * pair + 1])
    images = list(parent)
    people: dict[bytes, int] = {}
    return images, torch.tensor([people.setdefault(root(image), len(people)) for image in images])
