"""Figures of the paper's tables: image and pixel AUROC in percent, None where it gives none."""

from __future__ import annotations

from dataclasses import dataclass

TABLES = (
    ("mvtec", "visa", "mpdd", "btad", "sdd", "dagm"),
    ("brainmri", "liverct", "resc", "br35h", "covid19", "headct"),
)

DATASETS = tuple(name for names in TABLES for name in names)
"""The twelve of tables 1 and 2."""

_TABLES: tuple[dict[str, str], ...] = (
    {
        "CLIP": "74.1 38.4 66.4 46.6 54.3 62.1 34.5 30.6 65.7 39 79.6 28.2",
        "CLIP-AC": "71.5 38.2 65 47.8 56.2 58.7 51 32.8 65.2 32.5 82.5 32.7",
        "WinCLIP": "91.8 85.1 78.1 79.6 63.6 76.4 68.2 72.7 84.3 68.8 91.8 87.6",
        "April-GAN": "86.1 87.6 78 94.2 73 94.1 73.6 60.8 79.8 79.8 94.4 92.4",
        "AnomalyCLIP": "91.5 91.1 82.1 95.5 77 96.5 88.3 94.2 84.7 90.6 97.5 95.6",
        "MVFA-AD": "88.9 89.3 82.3 94.8 76.4 96.6 80.1 81.4 82.5 91.7 95.8 95.1",
        "KAnoCLIP": "93.1 94.3 83.8 97.7 77.8 98.3 90.6 96.5 86.2 93.2 97.3 96.8",
    },
    {
        "CLIP": "53.9 71.7 57.1 82.3 38.5 70.8 78.4 - 73.7 - 56.5 -",
        "CLIP-AC": "60.6 66.4 61.9 88.4 40.3 75.9 82.7 - 75 - 60.0 -",
        "WinCLIP": "66.5 86.0 64.2 92.2 42.5 80.6 80.5 - 66.4 - 81.8 -",
        "April-GAN": "76.4 91.8 70.6 94.1 75.6 85.2 93.1 - 15.5 - 89.1 -",
        "AnomalyCLIP": "78.3 92.2 73.7 96.2 83.3 91.5 94.6 - 80.1 - 93.4 -",
        "MVFA-AD": "78.6 90.3 74.2 95.9 84.2 92.0 90.5 - 83.5 - 91.3 -",
        "KAnoCLIP": "80.7 93.5 78.2 98.6 84.8 93.5 94.2 - 85.4 - 95.8 -",
    },
)
"""Tables 1 and 2, as printed: image and pixel AUROC for each dataset in the order of `TABLES`."""

ABLATION = {
    "mvtec": ((66.8, 55.4), (85.9, 87.4), (87.5, 88.9), (92.0, 92.4), (93.1, 94.3)),
    "visa": ((58.2, 47.1), (78.6, 91.2), (80.3, 92.3), (82.3, 95.8), (83.8, 97.7)),
}
"""Table 3: (image, pixel) AUROC of each cumulative row."""

OTHERS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "AnomalyVFM": {"mvtec": (96.4, 92.0), "visa": (92.9, 95.8)},
    "EdgeZSAD": {"mvtec": (91.6, None), "visa": (88.2, None)},
}
"""Later methods, (image, pixel) AUROC, as issue 25 quotes them."""

PROTOCOL = "the paper's tables: CLIP ViT-L/14@336, learned on the test split of another dataset (MVTec-AD for most)"


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A method's figures on one dataset, in percent."""

    method: str
    image_auroc: float
    pixel_auroc: float | None


def paper_rows(dataset: str) -> tuple[PaperRow, ...]:
    """Rows of the paper for a dataset, in its order; empty for one that it does not have."""
    for names, table in zip(TABLES, _TABLES, strict=True):
        if dataset in names:
            at = 2 * names.index(dataset)
            cells = {method: line.split() for method, line in table.items()}
            return tuple(
                PaperRow(method, float(row[at]), None if row[at + 1] == "-" else float(row[at + 1]))
                for method, row in cells.items()
            )
    return ()
