"""IJB-B and IJB-C from insightface's release and NIST's lists: 1:1 and 1:N."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.ijb import Meaning, identify_templates, verify_templates
from arcdist.evaluate.ijb_lists import Faces, read_faces, read_gallery, read_probes, read_template_pairs
from arcdist.evaluate.protocols.pairs import named
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.templates import Templates, pool_templates


@dataclass
class _Pooled:
    lists: str = field(default="", metadata={"help": "folder of IJB's lists, as insightface's IJBC/meta"})
    norm_weighting: bool = field(
        default=True, metadata={"help": "an image counts by its embedding's norm (N1 of ijb_11.py, N0 of ijb_evals.py)"}
    )
    detector_weighting: bool = field(default=True, metadata={"help": "an image counts by its detector score (D1)"})
    align: bool = field(
        default=True, metadata={"help": "of a model: images are loose crops, which the lists' landmarks align"}
    )

    def _files(self, pattern: str, count: int = 1) -> list[Path]:
        folder = Path(named("lists", self.lists))
        found = sorted(folder.glob(pattern))
        if len(found) != count:
            names = ", ".join(path.name for path in found) or "none"
            raise DataError(f"{folder}: of {pattern} {count} must be there, not {len(found)}: {names}")
        return found

    def _plan(self, index: FaceIndex, score: Callable[[Templates], Outcome]) -> Plan:
        (tid_mid,), (points,) = self._files("*_face_tid_mid.txt"), self._files("*_name_5pts_score.txt")
        faces = read_faces(tid_mid, points)
        rows = index.rows(faces.images, tid_mid)

        def pooled(parts: Mapping[str, Tensor]) -> Outcome:
            templates = self._templates(parts["images"], faces)
            outcome = score(templates)
            weights = "norm " * self.norm_weighting + "detector score" * self.detector_weighting
            about = f"{len(templates.ids):,} templates of {len(rows):,} images, weighted by: {weights or 'nothing'}"
            details = outcome.details | {"templates": len(templates.ids), "images": len(rows)}
            return Outcome(outcome.figures, details, [about, *outcome.notes])

        return Plan({"images": rows}, pooled, dict(zip(rows.tolist(), faces.landmarks)) if self.align else None)

    def _templates(self, embeddings: Tensor, faces: Faces) -> Templates:
        scores = faces.detector_score if self.detector_weighting else None
        return pool_templates(
            embeddings, faces.template, faces.medium, detector_score=scores, norm_weighting=self.norm_weighting
        )


@dataclass
class TemplatePairsConfig(_Pooled):
    """IJB 1:1; images are ``1.jpg`` and so on, within ``loose_crop``."""

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        pairs = read_template_pairs(self._files("*_template_pair_label.txt")[0])

        def score(templates: Templates) -> Outcome:
            found = verify_templates(templates, pairs)
            rates = found.rates
            nearest = ", ".join(f"{far:.0e}: {100 * tar:.2f}" for far, (tar, _) in found.nearest.items())
            return Outcome(
                {f"TAR@FAR={far:.0e}": tar for far, tar in rates.tar_at_far.items()},
                found.as_dict(),
                [
                    f"{rates.genuine:,} genuine and {rates.impostor:,} impostor pairs; the largest TAR whose FAR is at "
                    "most the named one",
                    f"at the nearest FAR, as insightface's scripts print it: {nearest}",
                ],
            )

        return self._plan(index, score)


@dataclass
class TemplateSearchConfig(_Pooled):
    """IJB 1:N; images are ``1.jpg`` and so on, within ``loose_crop``."""

    meaning: str = field(
        default="official",
        metadata={"help": "official | ijb_evals | concatenated: what the search of two galleries is, see the docs"},
    )

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        if self.meaning not in ("official", "ijb_evals", "concatenated"):
            raise ConfigError(f"meaning: {self.meaning!r}: must be official, ijb_evals or concatenated")
        galleries = [read_gallery(path) for path in self._files("*_1N_gallery_*.csv", 2)]
        probes = read_probes(self._files("*_1N_probe_mixed.csv")[0])

        def score(templates: Templates) -> Outcome:
            found = identify_templates(templates, galleries, probes, meaning=cast(Meaning, self.meaning))
            ranks = {f"rank-{k}": share for k, share in found.rank.items()}
            mated = ", ".join(f"{count:,}" for count in found.mated)
            word = "recall@false pairs" if self.meaning == "concatenated" else "TPIR@FPIR"
            return Outcome(
                ranks | {f"{word}={fpir:g}": share for fpir, share in found.tpir_at_fpir.items()},
                found.as_dict(),
                [f"{found.probes:,} probes; with a mate in each gallery: {mated}; meaning: {self.meaning}"],
            )

        return self._plan(index, score)
