import re
from pathlib import Path

import pandas
import pytest

from deepstat.datasets import history

ROOT = Path(__file__).parents[2]
TABLES = [history.milestones, history.most_cited, history.frameworks, history.ilsvrc]
COLUMNS = {
    "milestones": ["year", "what", "who", "kind", "source"],
    "most_cited": ["rank", "title", "year", "subject", "deep_learning", "source"],
    "ilsvrc": ["year", "team", "network", "error", "place", "extra_data", "source"],
    "frameworks": ["name", "begun", "ended", "what_began", "source_begun", "source_ended"],
}


@pytest.mark.parametrize("load", TABLES)
def test_the_columns_are_the_documented_ones_and_nothing_is_missing(load):
    table = load()
    assert list(table.columns) == COLUMNS[load.__name__]
    for column in table.columns:
        assert f"``{column}``" in load.__doc__
    required = table.drop(columns=["ended", "source_ended"], errors="ignore")
    assert required.notna().all(axis=None)
    for _, words in required.select_dtypes(exclude=["number", "bool"]).items():
        assert (words.str.strip() == words).all()
        assert (words.str.len() > 1).all()
    assert not table.duplicated().any()


@pytest.mark.parametrize("load", TABLES)
def test_each_call_gives_a_table_of_its_own(load):
    table = load()
    table.iloc[:, 0] = table.iloc[0, 0]
    assert len(load().iloc[:, 0].unique()) > 5


def test_milestones_come_in_order_with_sources_that_can_be_opened():
    table = history.milestones()
    assert table["year"].is_monotonic_increasing
    assert table["year"].between(1943, 2025).all()
    assert set(table["kind"]) == {"idea", "architecture", "data and hardware", "application"}
    opens = table["source"].str.match(r"https?://")
    assert table.loc[~opens, "who"].tolist() == ["Minsky and Papert"]  # a book


@pytest.mark.parametrize(("load", "least"), [(history.milestones, 20), (history.most_cited, 5)])
def test_the_years_agree_with_the_bibliography(load, least):
    """The year beside a DOI or address is that of the book's own entry, typed independently, if it has one."""
    entries = (ROOT / "chapters/references.bib").read_text(encoding="utf-8").split("\n@")
    years = {}
    for entry in entries:
        fields = dict(re.findall(r"^\s*(doi|url|year)\s*=\s*\{(.*?)\}", entry, re.MULTILINE))
        for place in ("doi", "url"):
            if place in fields:
                years[fields[place].lower()] = int(fields["year"])
    checked = 0
    for row in load().itertuples():
        place = row.source.removeprefix("https://doi.org/").lower()
        if place in years:
            assert row.year == years[place], place
            checked += 1
    assert checked >= least


def test_the_tables_agree_with_each_other():
    milestones = history.milestones().set_index("what")["year"]
    cited = history.most_cited().set_index("rank")["year"]
    for rank, what in ((1, "residual"), (7, "the Transformer"), (8, "AlexNet"), (12, "U-Net")):
        (year,) = milestones[milestones.index.str.contains(what)]
        assert cited[rank] == year


def test_the_most_cited_are_the_first_18_ranks():
    table = history.most_cited()
    assert table["rank"].tolist() == list(range(1, 19))
    assert table["year"].between(2000, 2025).all()  # Nature counts papers published since 2000
    assert table["deep_learning"].dtype == bool
    assert table["source"].str.match(r"https?://").all()
    assert table["source"].is_unique
    # U of Toronto's news on its own papers in the list: AlexNet 8th, the review 16th, Attention 7th.
    papers = table.set_index("rank")
    assert papers.loc[8, "title"].startswith("ImageNet classification")
    assert papers.loc[16, "title"] == "Deep learning"
    assert papers.loc[7, "title"] == "Attention is all you need"
    deep = papers.index[papers["deep_learning"]].tolist()
    assert deep == [1, 7, 8, 12, 16]


def test_frameworks_end_after_they_begin_and_say_why():
    table = history.frameworks()
    ended = table["ended"].notna()
    assert table["ended"].dtype == pandas.Int64Dtype()
    assert (table.loc[ended, "ended"] > table.loc[ended, "begun"]).all()
    assert (table["source_ended"].notna() == ended).all()
    assert table["begun"].is_monotonic_increasing
    assert table.loc[~ended, "name"].tolist() == ["Keras", "TensorFlow", "PyTorch", "PaddlePaddle", "JAX"]


def test_each_year_of_the_challenge_has_one_winner_and_errors_fall():
    table = history.ilsvrc()
    assert table["year"].is_monotonic_increasing
    assert table["year"].unique().tolist() == list(range(2010, 2018))
    assert table["extra_data"].dtype == bool
    winners = table[table["place"] == 1]
    assert (winners.groupby("year")["team"].nunique() == 1).all()
    best = winners.groupby("year")["error"].min()
    assert best.is_monotonic_decreasing
    assert table["error"].between(2, 30).all()
    same_year = table.groupby("year")["error"]
    assert (table.loc[same_year.idxmin(), "place"] == 1).all()
    assert table["source"].str.match(r"https://").all()
    # SENet's abstract: a quarter below the winner of 2016; GoogLeNet's paper: 56.5 % below SuperVision without more data
    assert abs(best[2017] / best[2016] - 0.75) < 0.01
    assert 0.435 * table.loc[table["error"] == 16.4, "error"].item() - best[2014] < 0.5
