import sys

import pytest
import torch

from deepstat.datasets import molecules
from helpers import refuses

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.mark.slow
def test_the_grammar_gives_distinct_molecules_that_rdkit_accepts():
    from rdkit import Chem

    every = molecules.smiles()
    assert len(every) == len(set(every)) == 1860
    assert {"Cc1ccccc1", "Nc1ccc(O)cc1", "c1ccncc1", "c1ccc2[nH]ccc2c1", "C1COCCN1"} - set(every) <= {"Nc1ccc(O)cc1"}
    sample = every[:: len(every) // 50]
    assert all(Chem.CanonSmiles(text) == text for text in sample)


@pytest.mark.slow
def test_atoms_bonds_and_label_are_rdkits():
    from rdkit import Chem
    from rdkit.Chem import Crippen

    sample = molecules.molecules(40, seed=1)
    assert len({graph.smiles for graph in sample}) == 40
    log_p = torch.cat([graph.log_p for graph in sample])
    for graph in sample:
        molecule = Chem.MolFromSmiles(graph.smiles)
        assert graph.num_nodes == molecule.GetNumAtoms()
        adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.int64)
        adjacency[graph.edge_index[0], graph.edge_index[1]] += 1
        assert torch.equal(adjacency, torch.tensor(Chem.GetAdjacencyMatrix(molecule)).long())
        counts = [sum(atom.GetSymbol() == element for atom in molecule.GetAtoms()) for element in molecules.ELEMENTS]
        assert graph.x[:, :7].sum(0).tolist() == counts
        assert graph.x[:, 7].sum() == sum(atom.GetIsAromatic() for atom in molecule.GetAtoms())
        assert torch.equal(graph.x[:, 8:].sum(1), torch.ones(graph.num_nodes))
        assert graph.log_p.item() == pytest.approx(Crippen.MolLogP(molecule), abs=1e-5)
        assert graph.y.item() == (graph.log_p > log_p.median()).item()
    with_hydrogens = sum((graph.x[:, 8:] @ torch.arange(4.0)).sum().item() for graph in sample)
    assert with_hydrogens == sum(Chem.AddHs(Chem.MolFromSmiles(g.smiles)).GetNumAtoms() - g.num_nodes for g in sample)


def test_known_values():
    """Benzene: six aromatic carbons and six hydrogens of Wildman and Crippen's table, 6 * (0.1581 + 0.1230)."""
    from rdkit import Chem
    from rdkit.Chem import Crippen

    assert Crippen.MolLogP(Chem.MolFromSmiles("c1ccccc1")) == pytest.approx(6 * 0.2811, abs=1e-3)


@pytest.mark.slow
def test_a_seed_gives_the_same_molecules():
    first, again, other = ([graph.smiles for graph in molecules.molecules(6, seed)] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_bad_input_is_refused():
    for graphs in (1, 5000):
        with refuses(ValueError, f"graphs must be between 2 and 1860, the number of molecules, got {graphs}"):
            molecules.molecules(graphs, 0)
    with refuses(TypeError, "graphs must be an integer, got str"):
        molecules.molecules("2", 0)


def test_without_rdkit_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with refuses(ImportError, "molecules need RDKit.*pip install rdkit"):
        molecules.smiles()
