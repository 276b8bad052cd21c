"""The report: blocks stored and read back, one file that is safe, small and works offline."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as MatplotlibFigure

from neuro.bibtex import BIBTEX, bibtex, reference
from neuro.errors import InputError
from neuro.markup import duration, memory, metrics_html, number, table_html
from neuro.report import (
    Figure,
    Html,
    StageReport,
    Table,
    Text,
    Warning,
    build_report,
    read_sections,
    write_section,
)

EVIL = '<script>document.title="taken"</script>'


def draw(n: int = 50) -> MatplotlibFigure:
    figure = MatplotlibFigure(figsize=(4, 2))
    figure.subplots().plot(np.random.default_rng(0).standard_normal(n))
    return figure


class Tags(HTMLParser):
    """Collects what a browser would take for tags, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


# -- blocks ------------------------------------------------------------------------------------


def test_blocks_come_back_as_they_were_stored(tmp_path: Path) -> None:
    table = pd.DataFrame({"subject": ["s1", "s2"], "r": [0.25, np.nan], "n": [3, 4]})
    blocks = [Text("a"), Warning("b"), Table(table, "c", {"r": "uV"}), Html("<b>d</b>", 90, False)]
    write_section(tmp_path, "First", [*blocks, Figure(draw(), "e"), "bare"])
    write_section(tmp_path, "Second", [])
    first, second = read_sections(tmp_path)
    assert (first.title, second.title, second.blocks) == ("First", "Second", [])
    text, warning, back, html, figure, bare = first.blocks
    assert (text, warning, html, bare) == (blocks[0], blocks[1], blocks[3], Text("bare"))
    assert back.rows[0] == {"subject": "s1", "r": 0.25, "n": 3}
    assert back.rows[1]["r"] is None
    assert (back.caption, back.units) == ("c", {"r": "uV"})
    assert figure.caption == "e"
    assert figure.figure.read_bytes().startswith(b"\x89PNG")


def test_a_missing_folder_holds_no_section(tmp_path: Path) -> None:
    assert read_sections(tmp_path / "none") == []


def test_more_than_ten_sections_keep_their_order(tmp_path: Path) -> None:
    for i in range(12):
        write_section(tmp_path, str(i), [])
    assert [section.title for section in read_sections(tmp_path)] == [str(i) for i in range(12)]


def test_a_named_index_of_a_frame_is_shown(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1]}, index=pd.Index(["s1"], name="subject"))
    write_section(tmp_path, "t", [Table(frame)])
    assert read_sections(tmp_path)[0].blocks[0].rows == [{"subject": "s1", "n": 1}]


def test_figures_are_compact_and_freed(tmp_path: Path) -> None:
    figure = draw(5000)
    write_section(tmp_path, "t", [Figure(figure), Figure(draw(), format="svg")])
    png, svg = (block.figure for block in read_sections(tmp_path)[0].blocks)
    assert png.stat().st_size < 40_000
    assert svg.read_text().lstrip().startswith("<?xml")
    assert figure.axes == []


def test_pyplot_figures_are_closed(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.figure()
    write_section(tmp_path, "t", [Figure(figure)])
    assert not plt.fignum_exists(figure.number)


def test_a_figure_may_be_a_file(tmp_path: Path) -> None:
    picture = tmp_path / "mine.svg"
    picture.write_text("<svg/>")
    write_section(tmp_path / "r", "t", [Figure(picture)])
    assert read_sections(tmp_path / "r")[0].blocks[0].figure.read_text() == "<svg/>"
    with pytest.raises(InputError, match=r"mine\.gif: a figure file must be \.png or \.svg"):
        write_section(tmp_path / "r", "t", [Figure(tmp_path / "mine.gif")])


def test_what_is_no_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a Figure, Table"):
        write_section(tmp_path, "t", [3])  # type: ignore[list-item]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"title": 1}', '{"title": "a", "blocks": [{}]}'])
def test_a_damaged_section_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "section-000.json").write_text(text)
    with pytest.raises(InputError, match=r"section-000\.json"):
        read_sections(tmp_path)


def test_a_stored_section_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    block = {"type": "figure", "caption": "", "file": "../secret.png"}
    (tmp_path / "r").mkdir()
    stored = json.dumps({"title": "t", "blocks": [block]})
    (tmp_path / "r" / "section-000.json").write_text(stored)
    assert read_sections(tmp_path / "r")[0].blocks[0].figure == tmp_path / "r" / "secret.png"


# -- numbers and tables ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.000"),
        (-0.25, "−0.250"),
        (0.00012, "0.0001"),
        (12.345, "12.35"),
        (1234.5, "1,234"),
        (7, "7"),
        (True, "yes"),
    ],
)
def test_numbers_are_written_as_one_reads_them(value: float | None, shown: str) -> None:
    assert number(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0.001, max_value=9.99))
def test_a_shown_number_is_the_rounded_one(value: float) -> None:
    assert abs(float(number(value)) - value) <= 0.0005 + 1e-9


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (None, 2.34, 61, 3720)] == [
        "–",
        "2.3 s",
        "1 min 01 s",
        "1 h 02 min",
    ]
    assert [memory(s) for s in (None, 5e6, 2.5e9)] == ["–", "5 MB", "2.50 GB"]


def test_tables_name_units_and_count_what_they_leave_out() -> None:
    html = table_html([{"r": 0.5, "who": "s"}] * 250, "caption", {"r": "uV"})
    assert "r (uV)" in html
    assert html.count("<tr>") == 201
    assert "50 more rows" in html


def test_a_metric_stands_beside_its_baseline_chance_and_interval() -> None:
    metric = {
        "value": 0.62, "low": 0.55, "high": 0.7, "n": 12, "n_unit": "subject", "chance": 0.333,
        "p": 0.004, "p_corrected": 0.012, "baseline": 0.589, "unit": None,
    }  # fmt: skip
    html = metrics_html({"classify.condition.pca.balanced_accuracy": metric, "none": {}})
    for shown in (
        "0.620",
        "0.550",
        "0.700",
        "12\u00a0subjects",
        "0.333",
        "0.589",
        "0.004",
        "0.012",
    ):
        assert shown in html
    assert "<svg" in html
    assert "unit" not in re.findall(r"<th[^>]*>([^<]*)</th>", html)  # an empty column is left out


# -- references --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(BIBTEX))
def test_every_entry_is_whole(key: str) -> None:
    entry = BIBTEX[key]
    assert {"type", "author", "title", "year"} <= set(entry)
    assert re.fullmatch(r"(19|20)\d\d", entry["year"])
    text = bibtex(key)
    assert text.startswith("@")
    assert text.count("{") == text.count("}")
    assert entry["year"] in reference(key)
    assert "{" not in reference(key)


# -- the file ----------------------------------------------------------------------------------


@pytest.fixture
def stages(tmp_path: Path) -> list[StageReport]:
    folder = tmp_path / "result"
    frame = Html("<input type=range id=r><script>r.value = 3</script>")
    blocks = [Text(EVIL), Figure(draw(), EVIL), Table([{EVIL: EVIL}], EVIL), Warning(EVIL), frame]
    write_section(folder, f"Section {EVIL}", blocks)
    return [
        StageReport(
            name=f"read{EVIL}",
            use="eeg-recordings",
            status="run",
            reason=EVIL,
            duration=3.2,
            peak_memory=2e8,
            folders={EVIL: folder},
            methods=[
                (f"EEG was read {EVIL}.", ["mne"]),
                ("Trials were cut.", ["lof", "mne"]),
                ("Own.", ["nobody1999", "@misc{mine,\n  title = {My own},\n}"]),
            ],
            warnings=[f"subject {EVIL} was skipped"],
        )
    ]


def build(path: Path, stages: list[StageReport], **changes: object) -> Path:
    settings = {
        "title": f"study {EVIL}",
        "metrics": {f"erp.{EVIL}.r": {"value": 0.5, "low": 0.4, "high": 0.6, "unit": EVIL}},
        "scored": {f"split {EVIL}": 3},
        "workflow": f"name: {EVIL}",
        "provenance": {"seed": 7, "versions": {EVIL: EVIL}, "items": [EVIL, {"a": [1, 2]}]},
        "description": EVIL,
    }
    return build_report(path, stages=stages, **{**settings, **changes})  # type: ignore[arg-type]


def test_no_text_becomes_markup(tmp_path: Path, stages: list[StageReport]) -> None:
    page = Tags(build(tmp_path / "report.html", stages).read_text("utf-8"))
    assert page.scripts
    assert not [script for script in page.scripts if "taken" in script]


def test_the_file_loads_nothing_from_outside(tmp_path: Path, stages: list[StageReport]) -> None:
    text = build(tmp_path / "report.html", stages).read_text("utf-8")
    page = Tags(text)
    for tag, attributes in page.tags:
        for source in (attributes.get("src"), attributes.get("href") if tag == "link" else None):
            assert source is None or source.startswith("data:")
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies
    assert "default-src 'none'" in str(policies[0])
    assert text.index("Content-Security-Policy") < text.index("<script")
    assert not re.search(r"url\(['\"]?(https?:)?//", text)


def test_a_sandboxed_block_runs_apart_from_the_report(
    tmp_path: Path, stages: list[StageReport]
) -> None:
    page = Tags(build(tmp_path / "report.html", stages).read_text("utf-8"))
    (frame,) = [attributes for tag, attributes in page.tags if tag == "iframe"]
    assert frame["sandbox"] == "allow-scripts"
    assert "r.value = 3" in str(frame["srcdoc"])
    assert "Content-Security-Policy" in str(frame["srcdoc"])


def test_the_report_shows_all_of_a_run(tmp_path: Path, stages: list[StageReport]) -> None:
    text = build(tmp_path / "report.html", stages).read_text("utf-8")
    shown = ["0.400", "0.600", "3.2 s", "200 MB", "times scored", "Section", "seed", "items"]
    shown += ["[1]", "[1, 2]", "Gramfort", "@article{mne,", "My own", "nobody1999 (no entry"]
    for part in shown:
        assert part in text
    assert text.index("Summary") < text.index("eeg-recordings") < text.index("Gramfort")
    assert list(tmp_path.glob(".report-*")) == []
    assert len(text) < 2_000_000


def test_an_empty_run_still_has_a_report(tmp_path: Path) -> None:
    text = build_report(tmp_path / "new" / "report.html", title="t", stages=[]).read_text("utf-8")
    assert "Summary" in text


def test_headlines_come_from_every_quantity(tmp_path: Path) -> None:
    metrics = {f"a.{i}.r": {"value": i / 100, "chance": 0.0} for i in range(50)}
    metrics |= {"b.count": {"value": 4}, "b.none": {"value": None}}
    text = build_report(tmp_path / "r.html", title="t", stages=[], metrics=metrics).read_text()
    summary = text[text.index("Headline numbers") : text.index("What was run")]
    assert "b.count" in summary
    assert "b.none" not in summary
    assert summary.count(">a.") == 15
    assert text.count("b.none") == 1


def test_many_items_are_named_rather_than_shown(tmp_path: Path) -> None:
    folders = {f"sub-{i:02d}": tmp_path / str(i) for i in range(30)}
    for folder in folders.values():
        write_section(folder, "Item", [Text("text of an item")])
    stage = StageReport("map", folders=folders)
    text = build_report(tmp_path / "r.html", title="t", stages=[stage]).read_text("utf-8")
    assert text.count("text of an item") == 24
    assert "sub-29" in text


def test_many_members_are_folded_away(tmp_path: Path) -> None:
    folders = {f"beta={i}": tmp_path / str(i) for i in range(5)}
    for folder in folders.values():
        write_section(folder, "Training", [Text("how it went")])
    metrics = {f"vae.kept[beta={i}]": {"value": i} for i in range(5)} | {"vae.best": {"value": 1}}
    stage = StageReport("candidates", folders=folders)
    html = build_report(tmp_path / "report.html", title="Run", stages=[stage], metrics=metrics)
    text = html.read_text()
    for label in folders:
        assert f"<details><summary>{label}</summary><h5>Training</h5>" in text
    assert "5 of single members" in text
    few = StageReport("two", folders=dict(list(folders.items())[:2]))
    assert (
        "Training · beta=0"
        in build_report(tmp_path / "few.html", title="Run", stages=[few]).read_text()
    )


def test_the_file_stays_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    picture = tmp_path / "noise.png"
    picture.write_bytes(noise)
    write_section(tmp_path / "r", "t", [Figure(picture, f"caption {i}") for i in range(6)])
    stage = StageReport("big", folders={"": tmp_path / "r"})
    path = build_report(tmp_path / "report.html", title="t", stages=[stage])
    text = path.read_text("utf-8")
    assert path.stat().st_size < 15_000_000
    assert base64.b64encode(noise[:30]).decode() in text
    assert text.count("left out to keep this file small") == 3
    assert "caption 5" in text


def test_a_lost_figure_does_not_spoil_the_report(tmp_path: Path, stages: list[StageReport]) -> None:
    for picture in (tmp_path / "result").glob("*.png"):
        picture.unlink()
    assert "or missing" in build(tmp_path / "report.html", stages).read_text("utf-8")


def test_the_same_content_is_used_again(tmp_path: Path, stages: list[StageReport]) -> None:
    first = build(tmp_path / "first.html", stages)
    marked = first.read_text("utf-8") + "<!-- kept -->"
    first.write_text(marked, "utf-8")
    stages[0].status, stages[0].duration = "cached", 0.0
    provenance = {"seed": 7, "versions": {EVIL: EVIL}, "items": [EVIL, {"a": [1, 2]}]}
    again = build(
        tmp_path / "a.html", stages, reuse=first, provenance={**provenance, "created": "later"}
    )
    assert again.read_text("utf-8") == marked


@pytest.mark.parametrize("change", ["metrics", "scored", "workflow", "figure", "text", "nothing"])
def test_other_content_is_drawn_anew(
    tmp_path: Path, stages: list[StageReport], change: str
) -> None:
    first = build(tmp_path / "first.html", stages)
    first.write_text(first.read_text("utf-8") + "<!-- kept -->", "utf-8")
    values = {"metrics": {"a.r": {"value": 0.1}}, "scored": {"split": 4}, "workflow": "other"}
    changes = {change: values[change]} if change in values else {}
    if change == "figure":
        next((tmp_path / "result").glob("*.png")).write_bytes(b"other")
    if change == "text":
        write_section(tmp_path / "result", "One more", [])
    again = build(tmp_path / "again.html", stages, reuse=first, **changes)
    assert ("<!-- kept -->" in again.read_text("utf-8")) is (change == "nothing")


def test_an_earlier_report_may_be_missing_or_foreign(
    tmp_path: Path, stages: list[StageReport]
) -> None:
    foreign = tmp_path / "foreign.html"
    foreign.write_bytes(b"\xff\xfe")
    for reuse in (tmp_path / "none.html", foreign):
        assert "Summary" in build(tmp_path / "r.html", stages, reuse=reuse).read_text("utf-8")


def test_marks_stand_on_every_section_and_in_the_summary(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_section(tmp_path / name, f"Of the {name}", [Text("text")])
    stages = [
        StageReport("plain", folders={"": tmp_path / "first"}),
        StageReport("marked", folders={"": tmp_path / "first", "b": tmp_path / "second"},
                    marks=[f"random {EVIL}"]),
    ]  # fmt: skip
    text = build(tmp_path / "report.html", stages).read_text("utf-8")
    assert text.count('role="alert">random') == 3  # the summary, and two sections of one stage
    assert not [script for script in Tags(text).scripts if "taken" in script]
