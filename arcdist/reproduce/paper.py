"""The tables of the ArcFace paper (arXiv:1801.07698): what each method trains with, and what was published for it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """A row of a table: a loss, as a run's configuration says it."""

    label: str
    overrides: tuple[str, ...]
    published: tuple[float | None, ...]
    """One number a column of the table; None: the paper gives none."""
    then: tuple[str, ...] = ()
    """What a second stage changes, which goes on where the first ended; empty: there is one stage."""
    trained_as: str = ""
    """The method that trains alike, whose cells are this one's too; empty: it has its own."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, and what of it is measured."""

    title: str
    columns: tuple[str, ...]
    methods: dict[str, Method] = field(default_factory=dict)
    angles: bool = False
    """Whether the columns are angles in degrees; otherwise accuracies in percent."""
    compared: tuple[tuple[str, str], ...] = ()
    """Which two methods the paper's text, or its table, sets against each other; its numbers say which is above."""

    def published(self, method: str, column: str) -> float | None:
        """Return what the paper gives for a method in one of its columns; None where it gives nothing."""
        return self.methods[method].published[self.columns.index(column)]

    def cell_of(self, method: str) -> str:
        """Return the name under which a method's cells lie."""
        return self.methods[method].trained_as or method


def _margin(name: str, *more: str) -> tuple[str, ...]:
    return (f"margin={name}", *more)


def _each_with(method: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((method, other) for other in others)


_TRIPLET = ("losses=[triplet]", "losses.softmax=0")
_FACENET = (*_TRIPLET, "losses.triplet.metric=squared_distance", "losses.triplet.margin=0.2")

TABLE_2 = PaperTable(
    "Table 2: verification (%) of different losses, CASIA, ResNet50",
    ("LFW", "CFP-FP", "AgeDB-30"),
    {
        "arcface_0.4": Method("ArcFace (0.4)", _margin("arcface", "margin.m2=0.4"), (99.53, 95.41, 94.98)),
        "arcface_0.45": Method("ArcFace (0.45)", _margin("arcface", "margin.m2=0.45"), (99.46, 95.47, 94.93)),
        "arcface_0.5": Method("ArcFace (0.5)", _margin("arcface"), (99.53, 95.56, 95.15)),
        "arcface_0.55": Method("ArcFace (0.55)", _margin("arcface", "margin.m2=0.55"), (99.41, 95.32, 95.05)),
        "sphereface_1.35": Method("SphereFace (1.35)", _margin("sphereface"), (99.11, 94.38, 91.70)),
        "cosface_0.35": Method("CosFace (0.35)", _margin("cosface"), (99.51, 95.44, 94.56)),
        "cm1": Method("CM1 (1, 0.3, 0.2)", _margin("cm1"), (99.48, 95.12, 94.38)),
        "cm2": Method("CM2 (0.9, 0.4, 0.15)", _margin("cm2"), (99.50, 95.24, 94.86)),
        "softmax": Method("Softmax", _margin("softmax"), (99.08, 94.39, 92.33)),
        "norm_softmax": Method("Norm-Softmax (NS)", _margin("norm_softmax"), (98.56, 89.79, 88.72)),
        "ns_intra": Method("NS+Intra", _margin("norm_softmax", "losses=[intra]"), (98.75, 93.81, 90.92)),
        "ns_inter": Method("NS+Inter", _margin("norm_softmax", "losses=[inter]"), (98.68, 90.67, 89.50)),
        "ns_intra_inter": Method(
            "NS+Intra+Inter", _margin("norm_softmax", "losses=[intra,inter]"), (98.73, 94.00, 91.41)
        ),
        "triplet": Method("Triplet (0.35)", _margin("norm_softmax", *_TRIPLET), (98.98, 91.90, 89.98)),
        "arcface_intra": Method("ArcFace+Intra", _margin("arcface", "losses=[intra]"), (99.45, 95.37, 94.73)),
        "arcface_inter": Method("ArcFace+Inter", _margin("arcface", "losses=[inter]"), (99.43, 95.25, 94.55)),
        "arcface_intra_inter": Method(
            "ArcFace+Intra+Inter", _margin("arcface", "losses=[intra,inter]"), (99.43, 95.42, 95.10)
        ),
        "arcface_triplet": Method("ArcFace+Triplet", _margin("arcface", "losses=[triplet]"), (99.50, 95.51, 94.40)),
    },
    compared=(
        *_each_with("arcface_0.5", "softmax", "norm_softmax", "sphereface_1.35", "cosface_0.35", "cm1", "cm2"),
        *_each_with("arcface_0.5", "triplet", "arcface_0.4", "arcface_0.45", "arcface_0.55"),
        *_each_with("arcface_0.5", "arcface_intra", "arcface_inter", "arcface_intra_inter", "arcface_triplet"),
        *_each_with("norm_softmax", "softmax", "ns_intra", "ns_inter", "ns_intra_inter", "triplet"),
        ("softmax", "cosface_0.35"),
        ("softmax", "triplet"),
        ("sphereface_1.35", "cosface_0.35"),
        ("ns_intra", "ns_inter"),
    ),
)


def _angles_of(name: str, label: str, *published: float | None) -> tuple[str, Method]:
    return name, Method(label, TABLE_2.methods[name].overrides, published)


# IntraL, InterL and TripletL of the paper are NS with that loss, and the triplet loss alone.
TABLE_3 = PaperTable(
    "Table 3: angles (degrees) under different losses, CASIA, ResNet50; 1 on the training set, 2 on LFW",
    ("W-EC", "W-Inter", "Intra1", "Inter1", "Intra2", "Inter2"),
    dict(
        [
            _angles_of("norm_softmax", "NS", 44.26, 69.66, 50.50, 59.23, 33.97, 65.60),
            _angles_of("arcface_0.5", "ArcFace", 14.29, 71.61, 38.45, 65.83, 28.05, 66.55),
            _angles_of("ns_intra", "IntraL", 8.83, 31.34, 17.50, 24.07, 12.94, 26.28),
            _angles_of("ns_inter", "InterL", 46.85, 75.66, 52.74, 62.40, 35.38, 67.90),
            _angles_of("triplet", "TripletL", None, None, 41.19, 50.23, 27.42, 55.94),
        ]
    ),
    angles=True,
    compared=(
        *_each_with("norm_softmax", "arcface_0.5", "ns_intra", "ns_inter", "triplet"),
        *_each_with("arcface_0.5", "ns_intra", "ns_inter", "triplet"),
    ),
)

TABLE_4 = PaperTable(
    "Table 4: verification (%) on LFW and YTF; each method with its authors' own net and data",
    ("LFW", "YTF"),
    {
        "deepid": Method("DeepID", _margin("softmax", "losses=[contrastive]"), (99.47, 93.20)),
        "deepface": Method("Deep Face", _margin("softmax"), (97.35, 91.4), trained_as="softmax"),
        "vgg_face": Method("VGG Face", _margin("softmax"), (98.95, 97.30), then=_FACENET),
        "facenet": Method("FaceNet", _margin("norm_softmax", *_FACENET), (99.63, 95.10)),
        "baidu": Method("Baidu", _margin("softmax"), (99.13, None), then=_FACENET, trained_as="vgg_face"),
        "center_loss": Method("Center Loss", _margin("softmax", "losses=[center]"), (99.28, 94.9)),
        "range_loss": Method("Range Loss", _margin("softmax", "losses=[range]"), (99.52, 93.70)),
        "marginal_loss": Method("Marginal Loss", _margin("softmax", "losses=[marginal]"), (99.48, 95.98)),
        "sphereface": Method("SphereFace", _margin("a_softmax"), (99.42, 95.0)),
        "sphereface_plus": Method("SphereFace+", _margin("a_softmax", "losses=[energy]"), (99.47, None)),
        "cosface_0.35": Method("CosFace", _margin("cosface"), (99.73, 97.6)),
        "arcface_0.5": Method("ArcFace", _margin("arcface"), (99.83, 98.02)),
    },
    compared=(
        *_each_with("arcface_0.5", "deepid", "deepface", "vgg_face", "facenet", "baidu", "center_loss", "range_loss"),
        *_each_with("arcface_0.5", "marginal_loss", "sphereface", "sphereface_plus", "cosface_0.35"),
        *_each_with("deepface", "deepid", "vgg_face", "facenet", "baidu", "center_loss", "range_loss"),
        *_each_with("deepface", "marginal_loss", "sphereface", "sphereface_plus", "cosface_0.35"),
        ("sphereface", "sphereface_plus"),
        ("sphereface", "cosface_0.35"),
    ),
)

TABLES = {"table2": TABLE_2, "table3": TABLE_3, "table4": TABLE_4}
