"""Molecules made by a small grammar, read by RDKit, with the water-octanol partition coefficient that it computes.

Every molecule is a ring system with one or two substituents, written in SMILES, and RDKit checks the chemistry. So they
are small, drug-like in their parts, and none was chosen for having been measured. The label is no measurement either: it
is Crippen's estimate of log P, a sum over atoms of a contribution that depends on the atom's type and its neighbours
(Wildman and Crippen, *Prediction of Physicochemical Parameters by Atomic Contributions*, 1999).

Chapter: graphs/sampling_and_pooling.
"""

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch_geometric.data import Data

RINGS = (  # places for the substituents are {0} and {1}
    "c1c{0}cc{1}cc1",  # benzene
    "c1c{0}cc{1}cn1",  # pyridine
    "c1c{0}nc{1}cn1",  # pyrazine
    "C1C{0}CC{1}CC1",  # cyclohexane
    "C1C{0}CN{1}CC1",  # piperidine
    "O1CC{0}NCC1{1}",  # morpholine
    "c1c{0}sc{1}c1",  # thiophene
    "c1c{0}oc{1}c1",  # furan
    "c1c{0}cc2c(c1)cc{1}cc2",  # naphthalene
    "c1c{0}cc2c(c1)cc{1}cn2",  # quinoline
    "c1c{0}cc2c(c1)c{1}c[nH]2",  # indole
    "C1C{0}OC{1}C1",  # tetrahydrofuran
)
SUBSTITUENTS = (  # attached by their first atom; the empty one is hydrogen
    *("", "(C)", "(C(C)C)", "(CCCC)", "(O)", "(OC)", "(N)", "(F)", "(Cl)", "(Br)", "(C#N)"),
    *("(C(=O)O)", "(C(F)(F)F)", "(S(=O)(=O)N)", "(c1ccccc1)"),
)
ELEMENTS = ("C", "N", "O", "F", "S", "Cl", "Br")
FEATURES = (*ELEMENTS, "aromatic", "no H", "one H", "two H", "three H")
CLASSES = ("below the median", "above the median")


def smiles() -> tuple[str, ...]:
    """All molecules of the grammar, in RDKit's canonical form, each once, in the order in which they are made.

    Raises:
        ImportError: if RDKit is not installed.
    """
    chem = _rdkit()[0]
    written = (
        ring.format(one.replace("1", "8"), two.replace("1", "9"))  # other numbers for other rings
        for ring, one, two in itertools.product(RINGS, SUBSTITUENTS, SUBSTITUENTS)
    )
    return tuple(dict.fromkeys(chem.CanonSmiles(text) for text in written))


def molecules(graphs: int, seed: int) -> "list[Data]":
    """Draw different molecules of the grammar, with atoms as nodes and bonds as edges; hydrogens are counted, not drawn.

    Args:
        graphs: how many, at least 2 and at most as many as :func:`smiles` has.
        seed: of the choice.

    Returns:
        PyTorch Geometric's ``Data`` with ``x`` of shape ``(atoms, 12)``, indicators in the order of ``FEATURES``,
        ``edge_index`` with every bond in both directions, ``log_p`` of shape ``(1,)``, Crippen's estimate of the
        decadic logarithm of the partition coefficient, ``y`` of shape ``(1,)``, whether that is above the median of
        this sample, and ``smiles``.

    Raises:
        ImportError: if RDKit is not installed.
        TypeError: if ``graphs`` is not an integer.
        ValueError: if ``graphs`` is out of range.
    """
    from torch_geometric.data import Data  # here, because its import takes seconds

    chem, crippen = _rdkit()
    if isinstance(graphs, bool) or not isinstance(graphs, int):
        raise TypeError(f"graphs must be an integer, got {type(graphs).__name__}")
    every = smiles()
    if not 2 <= graphs <= len(every):
        raise ValueError(f"graphs must be between 2 and {len(every)}, the number of molecules, got {graphs}")
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:graphs]
    sample = [chem.MolFromSmiles(every[i]) for i in chosen]
    log_p = torch.tensor([crippen.MolLogP(molecule) for molecule in sample])
    labels = (log_p > log_p.median()).long()
    return [
        Data(
            x=torch.tensor([_features(atom) for atom in molecule.GetAtoms()]),
            edge_index=_bonds(molecule),
            y=labels[i : i + 1],
            log_p=log_p[i : i + 1],
            smiles=every[chosen[i]],
        )
        for i, molecule in enumerate(sample)
    ]


def _features(atom) -> list[float]:
    hydrogens = min(atom.GetTotalNumHs(), 3)
    kind = [float(atom.GetSymbol() == element) for element in ELEMENTS]
    return [*kind, float(atom.GetIsAromatic()), *(float(hydrogens == count) for count in range(4))]


def _bonds(molecule) -> torch.Tensor:
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    one_way = torch.tensor(pairs, dtype=torch.int64).T
    return torch.cat([one_way, one_way.flip(0)], dim=1)


def _rdkit():
    """RDKit's reader and its module on log P; imported late, because nothing else of the package needs them."""
    try:
        from rdkit import Chem
        from rdkit.Chem import Crippen
    except ImportError as error:
        raise ImportError("molecules need RDKit, got an environment without it: install it by `pip install rdkit`") from error
    return Chem, Crippen
