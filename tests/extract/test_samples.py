"""samples.csv as people write it: what is accepted, and one line naming file and line for what is not."""

from pathlib import Path

import pytest

from extract.samples import check_files, read_samples, select
from magnet_core.errors import MagnetError
from magnet_core.records import Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "outs").mkdir()
    return tmp_path


def write(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "samples.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_full_table_and_its_defaults(folder: Path) -> None:
    text = "slide_id,image,counts,platform,mpp,patient\nP1-a,a.tif,outs,space_ranger_hd,0.2738,P1\nP2,b.tif,,,,\n"
    assert read_samples(write(folder, text)) == [
        Sample("P1-a", folder / "a.tif", folder / "outs", "space_ranger_hd", 0.2738, "P1"),
        Sample("P2", folder / "b.tif", patient="P2"),
    ]


def test_two_columns_are_enough_in_any_order_and_absolute_paths_stay(folder: Path) -> None:
    assert read_samples(write(folder, f"image,slide_id\n{folder / 'a.tif'},P1")) == [
        Sample("P1", folder / "a.tif", patient="P1")
    ]


def test_other_words_for_a_platform_are_known(folder: Path) -> None:
    for word in ("visium_hd", "Visium HD"):
        (sample,) = read_samples(write(folder, f"slide_id,image,platform\nP1,a.tif,{word}\n"))
        assert sample.platform == "space_ranger_hd"
    with pytest.raises(MagnetError, match="line 2, platform: expected a known name, found 'visium_h'; did you mean"):
        read_samples(write(folder, "slide_id,image,platform\nP1,a.tif,visium_h\n"))


def test_a_mark_after_the_mpp_overrides_the_files(folder: Path) -> None:
    samples = read_samples(write(folder, "slide_id,image,mpp\nP1,a.tif,0.5!\nP2,b.tif,0.25\n"))
    assert [(sample.mpp, sample.mpp_overrides) for sample in samples] == [(0.5, True), (0.25, False)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("P1,c.tif,", r"slide 'P1': expected column 'image' of samples.csv to name .* found nothing at .*c\.tif"),
        ("P1,a.tif,out", "slide 'P1': expected column 'counts' of samples.csv to name an existing path"),
        ("P1,outs,", "slide 'P1': expected an image file, found the folder"),
    ],
)
def test_a_file_that_is_not_there_is_the_slides_fault_and_not_the_tables(folder: Path, row: str, message: str) -> None:
    broken, whole = read_samples(write(folder, f"slide_id,image,counts\n{row}\nP2,b.tif,outs\n"))
    check_files(whole)
    with pytest.raises(MagnetError, match=message):
        check_files(broken)


def test_what_spreadsheets_add_is_no_mistake(folder: Path) -> None:
    text = '\r\n slide_id , image ,mpp\r\n\r\nP1, "a.tif" ,0.25 \r\n"P2",b.tif,\r\n,,\r\n'.replace(
        ' "a.tif" ', "a.tif "
    )
    samples = read_samples(write(folder, text, encoding="utf-8-sig"))
    assert [(s.slide_id, s.image.name, s.mpp) for s in samples] == [("P1", "a.tif", 0.25), ("P2", "b.tif", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "samples.csv: expected a header line .* found an empty file"),
        ("slide_id,image\n\n", "found only a header"),
        ("slide_id;picture\nP1;a.tif", "line 1: expected known columns, found 'picture'"),
        ("slide;picture\nP1;a.tif", "line 1: expected known columns, found 'slide'"),
        ("slide_id|image\nP1|a.tif", r"line 1: expected known columns, found 'slide_id\|image'"),
        ("sep=|\nslide_id|image\nP1|a.tif", r"line 1: expected commas, semicolons or tabs .*, found 'sep=\|'"),
        ("sep=;\nslide_id,image\nP1,a.tif", "line 2: expected known columns, found 'slide_id,image'"),
        ("sep=;\n", "found an empty file"),
        ("slide_id;image\nP1,a.tif", "line 2: expected 2 cells, as the header has, found 1"),
        ('slide_id;image\nP1;"a.tif', "expected text separated by semicolons"),
        ("slide_id,picture\nP1,a.tif", "line 1: expected known columns, found 'picture'"),
        ("slide_id,image,patien\nP1,a.tif,", "found 'patien'; did you mean patient"),
        ("slide_id,mpp\nP1,0.25", "line 1: expected the columns slide_id and image, found no image"),
        ("slide_id,image,image\nP1,a.tif,b.tif", "found 'image' twice"),
        ("slide_id,image\nP1,a.tif\nP1,b.tif", "line 3: .* found 'P1', which line 2 has"),
        ("slide_id,image\nP1,a.tif\n\np1,b.tif", "line 4: .* found 'p1', which line 2 has"),
        ("slide_id,image\n../P1,a.tif", "line 2: expected a slide_id that can name a folder, found '../P1'"),
        ("slide_id,image\n.P1,a.tif", "can name a folder"),
        ("slide_id,image\nP1.,a.tif", "can name a folder"),
        ("slide_id,image\nP 1,a.tif", "can name a folder"),
        ("slide_id,image\n,a.tif", "can name a folder, found ''"),
        ("slide_id,image\nP1,", "line 2: expected a path in column 'image', found nothing"),
        ("slide_id,image,platform\nP1,a.tif,space_ranger", "did you mean space_ranger_hd"),
        ("slide_id,image\nP1,a.tif,0.25", "line 2: expected 2 cells, as the header has, found 3"),
        ("slide_id,image,mpp\nP1,a.tif", "line 2: expected 3 cells"),
        ("slide_id,image,mpp\nP1,a.tif,0.25 µm", "line 2: expected mpp in µm/px between 0.05 and 20, found '0.25 µm'"),
        ('slide_id,image,mpp\nP1,a.tif,"1,000.5"', "found '1,000.5'"),
        ("slide_id;image;mpp\nP1;a.tif;0,01", "found '0,01'"),
        ("slide_id,image,mpp\nP1,a.tif,0_5", "found '0_5'"),
        ("slide_id,image,mpp\nP1,a.tif,1e999", "found '1e999'"),
        ("slide_id,image,mpp\nP1,a.tif," + "1" * 4000, "found '1111"),
        ("slide_id,image\nP1," + "a" * 5000, "line 2: expected cells of at most 4096 characters, found 'aaaa"),
        ("slide_id,image\nP1," + "a" * 200_000, "samples.csv: expected comma-separated text, found field larger"),
        ("slide_id,image\nP1,~nouser/a.tif", "line 2, image: expected a path, found '~nouser', which has no folder"),
        ("slide_id,image,counts\nP1,a.tif,~nouser", "line 2, counts: expected a path, found '~nouser'"),
        ("slide_id,image\nP1,a\0.tif", r"line 2, image: expected a path, found 'a\\x00.tif', with a NUL in it"),
        ("slide_id,image\n" + "\n".join(f"P{i},a.tif" for i in range(10_001)), "expected at most 10000 slides"),
        ("slide_id,image\n" + "P1,a.tif\n" * 2_000_000, "expected a sample table of at most 16 MiB"),
        ("slide_id,image\n" + "\n" * 1_000_000, "found only a header"),
        ("slide_id,image,mpp\nP1,a.tif,0", "found '0'"),
        ("slide_id,image,mpp\nP1,a.tif,!", "found '!'"),
        ("slide_id,image,mpp\nP1,a.tif,0.5!!", "found '0.5!!'"),
        ("slide_id,image,mpp\nP1,a.tif,-0.25", "found '-0.25'"),
        ("slide_id,image,mpp\nP1,a.tif,250", "found '250'"),
        ("slide_id,image,mpp\nP1,a.tif,nan", "found 'nan'"),
        ('slide_id,image\nP1,"a.tif', "expected comma-separated text"),
    ],
)
def test_each_mistake_is_one_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(MagnetError, match=message) as caught:
        read_samples(write(folder, text))
    assert "samples.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_one_of_another_encoding(folder: Path) -> None:
    with pytest.raises(MagnetError, match="no such file"):
        read_samples(folder / "samples.csv")
    with pytest.raises(MagnetError, match="expected a sample table, found a folder"):
        read_samples(folder / "outs")
    with pytest.raises(MagnetError, match="expected UTF-8 text"):
        read_samples(write(folder, "slide_id,image\nPatientin_Müller,a.tif", encoding="latin-1"))


TABLE = "slide_id,image,mpp,patient\nP1,a.tif,0.25,P\nP2,b.tif,1.5!,\n"
DECIMAL_COMMAS = TABLE.replace(",", ";").replace(".25", ",25").replace("1.5", "1,5")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TABLE, "utf-8"),
        (TABLE.replace(",", ";"), "utf-8"),
        (TABLE.replace(",", "\t"), "utf-8"),
        (TABLE.replace(",", "\t"), "utf-16"),  # Excel's "Unicode Text"
        (DECIMAL_COMMAS, "utf-8-sig"),
        (f"sep=;\r\n{DECIMAL_COMMAS}", "utf-8-sig"),
        (f"sep=\t\n{TABLE}".replace(",", "\t"), "utf-16"),
        (f'"sep=,"\n{TABLE}', "utf-8"),
        (f"\n\n{TABLE}".replace(",", ";"), "utf-8"),
        (TABLE.replace("\n", "\r"), "utf-8"),  # Excel's "CSV (Macintosh)"
        (TABLE.replace(",", " ; ").replace("\n", ";;\r\n"), "utf-8"),
        (TABLE.replace("0.25", '"0,25"').replace("1.5!", '"1,5!"'), "utf-8"),
        ('"' + DECIMAL_COMMAS.strip().replace(";", '";"').replace("\n", '"\n"') + '"', "utf-8"),
    ],
)
def test_one_table_however_a_spreadsheet_saves_it(folder: Path, text: str, encoding: str) -> None:
    assert read_samples(write(folder, text, encoding=encoding)) == [
        Sample("P1", folder / "a.tif", mpp=0.25, patient="P"),
        Sample("P2", folder / "b.tif", mpp=1.5, patient="P2", mpp_overrides=True),
    ]


def test_a_cell_may_hold_what_separates_others(folder: Path) -> None:
    (sample,) = read_samples(write(folder, 'slide_id;image\nP1;"a, b; c.tif"'))
    assert sample.image == folder / "a, b; c.tif"
    assert read_samples(write(folder, "slide_id\timage\nP1\ta, b; c.tif")) == [sample]


def test_a_name_that_no_file_system_takes_is_the_slides_fault(folder: Path) -> None:
    for cell in ("a" * 300, "a.tif/b.tif"):
        (sample,) = read_samples(write(folder, f"slide_id,image\nP1,{cell}"))
        with pytest.raises(MagnetError, match=f"slide 'P1': expected column 'image' .* at .*{cell}"):
            check_files(sample)


def test_select_keeps_the_wanted_order_and_names_the_near_ids(folder: Path) -> None:
    samples = [Sample(slide_id, folder / "a.tif") for slide_id in ("A1", "A2", "B1")]
    assert [s.slide_id for s in select(samples, ["B1", "A1"])] == ["B1", "A1"]
    with pytest.raises(MagnetError, match="found 'A3'; did you mean"):
        select(samples, ["A3"])
