"""The section of a sweep: its best trials, the recipe of the best, and how the search went.

In: sweep.json, trials.csv, best.toml, study.db or the records of trials. Out: a `Section`. A refit is a result of its
own, in `refit`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnet_core.checksums import FILES, check_files
from train.places import SWEEP
from train.report.folder import number_of, read_csv, read_json, read_toml_text
from train.report.parts import Block, Code, Listing, Section, Table
from train.report.search import search_blocks
from train.report.settings import facts, settings, versions
from train.settings.search import SearchConfig
from train.studies.numbers import NOTHING, number
from train.sweep.record import BEST, STORAGE, TRIALS
from train.sweep.space import described_space
from train.sweep.study import DATABASE, open_study
from train.sweep.trial_records import check_trials, study_of_records

SHOWN = 10
OF_THE_TRIAL = ("trial", "ended", "pcc_gene", "epochs", "reason")


def sweep_section(folder: Path) -> Section:
    """Read a sweep's folder; one without a trial is an error."""
    record = read_json(folder / SWEEP, ("settings", "slides", "space"))
    read_back = [name for name in (TRIALS, BEST) if (folder / name).exists()]
    remedy = "give 'train sweep' again: it writes them anew"
    check_files(folder, read_back, record.get(FILES), remedy=remedy)  # of which sweeps of before say nothing
    trials = read_csv(folder / TRIALS, (*OF_THE_TRIAL, *record["space"]))
    whole = [row for row in trials if row["ended"] == "whole" and row["pcc_gene"]]
    whole.sort(key=lambda row: number_of(row["pcc_gene"]), reverse=True)
    config, slides = record["settings"], record["slides"]
    target = f"{config['data']['target']} µm"
    held_out = ", ".join(slides["validation"])
    about = [
        ("target", target),
        *facts(config),
        ("trials", ", ".join(f"{count} {word}" for word, count in Counter(row["ended"] for row in trials).items())),
        ("learnt from", ", ".join(slides["learnt"])),
        ("judged on", f"{held_out}: held out, no test slide was looked at"),
    ]
    blocks: list[Block] = [
        *settings(config),
        best_table(whole[:SHOWN], record["space"]),
        *([Code("Recipe of the best trial", read_toml_text(folder / BEST))] if whole else []),
        *search_of(folder, record),
        *refusals(trials),
        versions(record),
    ]
    main = []
    if whole:
        name, value = f"best of {len(whole)} trials", number(number_of(whole[0]["pcc_gene"]))
        dashes = [NOTHING] * 3
        main = [[folder.name, target, name, f"{held_out} (validation)", *dashes, value, NOTHING, NOTHING]]
    return Section(f"{folder.name}: search of hyper-parameters", str(folder), about, blocks, main)


def best_table(whole: list[dict[str, str]], space: dict[str, object]) -> Table:
    """The best trials and the settings that were searched."""
    rows = [
        [row["trial"], number(number_of(row["pcc_gene"]), 4), row["epochs"], *(rounded(row[name]) for name in space)]
        for row in whole
    ]
    note = "PCC per gene on what is held out." if rows else "No trial was trained to its end."
    return Table("Best trials", ("trial", "PCC per gene", "epochs", *space), rows, 0, note)


def rounded(text: str) -> str:
    """A setting's value with four digits where it is a long number."""
    try:
        return f"{float(text):.4g}" if "." in text else text
    except ValueError:
        return text


def search_of(folder: Path, record: Mapping[str, Any]) -> list[Block]:
    """How the search went, where its study is there; one in a shared storage is told by the records of its trials."""
    space = record["space"]
    if STORAGE in record:
        return search_blocks(study_of_records(folder, described_space(space)), space)
    if not (folder / DATABASE).is_file():
        return []
    with open_study(folder, SearchConfig()) as study:
        check_trials(study, folder)
        return search_blocks(study, space)


def refusals(trials: list[dict[str, str]]) -> list[Block]:
    """Why trials were refused."""
    reasons = sorted({row["reason"] for row in trials if row.get("reason")})
    return [Listing("What failed", reasons or ["nothing"], alarming=bool(reasons))]
