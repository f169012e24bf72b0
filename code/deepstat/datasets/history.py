"""Four small tables on the history of deep learning, typed by hand, each row with its source.

Chapters: foundations/introduction, vision/classic_cnns.
"""

from importlib import resources

import pandas


def milestones() -> pandas.DataFrame:
    """Works and events that the field counts among its origins, a selection.

    Returns:
        One row a milestone, in the order of the years: ``year`` of publication or event; ``what`` happened; ``who``;
        ``kind``, one of idea, architecture, data and hardware, application; ``source``, a DOI or another address, or a
        reference in words.
    """
    return _read("history_milestones.csv")


def most_cited() -> pandas.DataFrame:
    """The first 18 of the 25 most-cited papers of the twenty-first century, in Nature's ranking of April 2025.

    H. Pearson, H. Ledford, M. Hutson and R. Van Noorden, *The most-cited papers of the twenty-first century*, Nature
    640, 588-592 (2025), rank by the median of a paper's ranks in five databases. The lecture's slide shows the first
    18; the other seven, and the citation counts, are left out because we could not confirm them.

    Returns:
        One row a paper, in the order of the ranks: ``rank`` from 1; ``title``, long ones abridged; ``year`` of
        publication; ``subject``; ``deep_learning``, whether the paper is about neural networks; ``source``, the
        address of the paper itself, which supports title and year; the rank is that of the list above.
    """
    return _read("history_most_cited.csv")


def frameworks() -> pandas.DataFrame:
    """Programming frameworks for deep learning, and what became of them until 2025.

    Returns:
        One row a framework, in the order of the years: ``name``; ``begun``, the year of what ``what_began`` says;
        ``ended``, the year in which new development ended, or of the last main release, missing if it goes on;
        ``what_began``; ``source_begun``; ``source_ended``, missing where ``ended`` is.
    """
    table = _read("history_frameworks.csv")
    return table.astype({"ended": "Int64"})


def ilsvrc() -> pandas.DataFrame:
    """Top-5 errors in the classification task of the ImageNet Large Scale Visual Recognition Challenge, 2010 to 2017.

    The share of test images whose class is not among an entry's five guesses. Entries are whole systems, as a rule
    averages of several networks over several crops of an image. The years 2012 and 2013 have two rows of the winning
    team, with and without further training images; 2012 and 2014 also have the second team.

    Returns:
        One row an entry, in the order of the years: ``year``; ``team``; ``network``, or what was in its place;
        ``error`` in per cent; ``place`` of the team; ``extra_data``, whether it was trained on images from outside of
        the challenge; ``source``, an address that states the error.
    """
    return _read("history_ilsvrc.csv")


def _read(file: str) -> pandas.DataFrame:
    with resources.files("deepstat.datasets").joinpath("data", file).open(encoding="utf-8") as stream:
        return pandas.read_csv(stream)
