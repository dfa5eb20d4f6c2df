"""What a run that begins takes over from another: the backbone's weights, and centers that fit them."""

import logging
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from arcdist.backbones.weights import load_backbone_weights
from arcdist.data.augment import AugmentConfig
from arcdist.data.image_set import ImageSet
from arcdist.data.order import Order
from arcdist.data.selection import Selection
from arcdist.data.sources import DataConfig
from arcdist.evaluate.embed import evaluating
from arcdist.evaluate.model_source import find_weights
from arcdist.heads import PartialFC
from arcdist.runtime import collectives
from arcdist.runtime.fully_sharded import take_over, whole
from arcdist.runtime.world import World

_log = logging.getLogger("arcdist")


def load_initial(source: str, backbone: nn.Module) -> None:
    """Copy the weights of another run, or of a file, into a backbone.

    Args:
        source: what ``arcdist evaluate`` takes as a model.
        backbone: of the same kind and embedding length.

    Errors: DataError where there are none, and where they are another backbone's; it says of which.
    """
    path = find_weights(source)
    plain = whole(backbone)
    load_backbone_weights(path, plain)
    if plain is not backbone:
        take_over(backbone, plain)
    if collectives.rank() == 0:
        _log.info("the backbone begins with the weights of %s", path)


def centers_from_means(
    head: PartialFC, backbone: nn.Module, dataset: ImageSet | Selection, data: DataConfig, batch_size: int, world: World
) -> None:
    """Set every class's center to the mean direction of its images' embeddings, at the length that it had.

    A new head on a trained backbone then begins near where it would end, and its first steps do not tear the backbone's
    weights away from what they know. Classes without an image keep their random centers.

    Args:
        head: whose centers are set in place.
        backbone: that embeds, in eval mode and float32; the bare network.
        dataset: every image of which is seen once, as it is.
        data: how it is read.
        batch_size: images of all ranks at a time, that they can share out.

    Cost: a forward pass for each image. Communication: an all-gather of the embeddings.
    """
    plain = replace(data, augment=AugmentConfig(flip=0.0))
    loader = plain.build_loader(
        *(dataset, Order(len(dataset), 0), batch_size, world.rank, world.size, world.device),
    )
    dim, steps = head.embedding_dim, -(-len(dataset) // batch_size)
    sums = torch.zeros(len(head.classes), dim, device=world.device)
    if world.is_first:
        _log.info("the centers begin as means of the embeddings of %d images", len(dataset))
    for step, batch in enumerate(loader.batches(0, steps)):
        batch = batch.to(world.device)
        with evaluating(backbone, "fp32", world.device):
            embeddings, labels = collectives.gather_rows(F.normalize(backbone(batch.images)), batch.labels)
        seen_first = len(dataset) - step * batch_size  # the order goes on with its next epoch
        embeddings, places = embeddings[:seen_first], labels[:seen_first] - head.classes.start
        mine = (places >= 0) & (places < len(head.classes))
        sums.index_add_(0, places[mine], embeddings[mine])
    with torch.no_grad():
        centers = head.centers[:, :dim]
        means = F.normalize(sums) * centers.norm(dim=1, keepdim=True)
        centers.copy_(torch.where(sums.norm(dim=1, keepdim=True) > 0, means, centers))
