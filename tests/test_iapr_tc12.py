"""IAPR TC-12 from a tiny copy of its official layout."""

import pytest
from tiny_archives import jpeg, write_folder

from modal_aware_jax.data import iapr_tc12
from modal_aware_jax.data.problems import DataProblems

ENG = """<DOC>
<DOCNO>annotations/{folder}/{n}.eng</DOCNO>
<TITLE>{title}</TITLE>
<DESCRIPTION>{description}</DESCRIPTION>
<NOTES>{notes}</NOTES>
<LOCATION>Cusco, Peru</LOCATION>
<DATE>March 2002</DATE>
<IMAGE>images/{folder}/{n}.jpg</IMAGE>
<THUMBNAIL>thumbnails/{folder}/{n}.jpg</THUMBNAIL>
</DOC>
"""


def eng(n, title, description, notes=""):
    folder = f"{n // 1000:02d}"
    content = ENG.format(
        folder=folder, n=n, title=title, description=description, notes=notes
    )
    return f"annotations_complete_eng/{folder}/{n}.eng", content.encode("iso-8859-1")


def files():
    content = dict(
        [
            eng(25, "Plaza de Armas", "a red house;\na red car in the square;"),
            eng(7, "Caf\xe9 \x96", "a woman with a child", "ISO 8859-1"),
            eng(1004, "Lake", "a lake in the mountains"),
        ]
    )
    for folder, n in (("00", 25), ("00", 7), ("01", 1004)):
        content[f"images/{folder}/{n}.jpg"] = jpeg(n)
    content["benchmark/wlist.txt"] = (
        b"1\thouse\r\n2\tcar\r\n3 group of persons\r\n4\tsky\r\n"
    )
    content["00/labels.txt"] = b"25 1 1\r\n25 2 2\r\n25 3 1\r\n7\t1\t3\r\n"
    content["01/labels.txt"] = b"1004 1 1\n77 1 4\n"
    return content


@pytest.fixture
def load(tmp_path):
    def load(**options):
        options = {"progress": False, **options}
        prepared_dir = tmp_path / "prepared"
        return iapr_tc12.load(tmp_path / "data", prepared_dir=prepared_dir, **options)

    return load


def test_every_field_of_an_annotation_is_read():
    content = eng(25, "Plaza  de\nArmas", "a house", "note")[1].decode()
    assert iapr_tc12.parse_annotation(content) == iapr_tc12.Annotation(
        docno="annotations/00/25.eng",
        title="Plaza de Armas",
        description="a house",
        notes="note",
        location="Cusco, Peru",
        date="March 2002",
        image="images/00/25.jpg",
        thumbnail="thumbnails/00/25.jpg",
    )


@pytest.mark.parametrize("root", [".", "iaprtc12"])
def test_the_official_files_give_the_pairs(root, tmp_path, load):
    write_folder(tmp_path / "data" / root, files())
    pairs = load()
    assert pairs.ids.tolist() == ["7", "25", "1004"]
    assert pairs.label_names == ("car", "group of persons", "house")
    assert pairs.labels.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]
    assert pairs.captions[1] == "Plaza de Armas: a red house; a red car in the square;"
    assert pairs.captions[0].startswith("Caf\xe9")
    assert pairs.vocabulary[:3] == ("a", "in", "the")
    words = {pairs.vocabulary[i] for i in pairs.text[1].nonzero()[0]}
    assert words == {"a", "red", "house", "car", "in", "the", "square"}
    assert pairs.images[2] == jpeg(1004)


def test_labels_may_be_a_table_and_words_of_other_fields(tmp_path, load):
    content = files()
    content["labels.csv"] = b"image,labels\n25,house;car\n7,\n1004.jpg,lake\n"
    write_folder(tmp_path / "data", content)
    pairs = load(text_fields=["title", "location"], max_words=3)
    assert pairs.ids.tolist() == ["25", "1004"]
    assert pairs.label_names == ("car", "house", "lake")
    assert pairs.vocabulary == ("cusco", "peru", "armas")
    assert load(keep_unlabelled=True).ids.tolist() == ["7", "25", "1004"]
    with pytest.raises(ValueError, match="text_fields are some of .*; got story"):
        load(text_fields=["story"])


def test_malformed_lines_are_named_with_file_and_line(tmp_path, load):
    content = files()
    content["annotations_complete_eng/00/8.eng"] = (
        b"<DOC>\n<DOCNO>x</DOCNO>\n<TITLE>a\n"
    )
    content["annotations_complete_eng/00/9.eng"] = b"<DOC>\n</DOC>"
    content.update([eng(10, "no description", "")])
    content["annotations_complete_eng/02/25.eng"] = eng(25, "again", "again")[1]
    content["00/labels.txt"] += b"25 1\n7 1 99\n"
    content["benchmark/wlist.txt"] += b"tree\n"
    del content["images/01/1004.jpg"]
    write_folder(tmp_path / "data", content)
    with pytest.raises(DataProblems) as caught:
        load()
    data = tmp_path / "data"
    folder = data / "annotations_complete_eng"
    assert {(p.kind, p.where) for p in caught.value.problems} == {
        ("malformed line", f"{data}/benchmark/wlist.txt line 5"),
        ("malformed line", f"{data}/00/labels.txt line 5"),
        ("unknown label", f"{data}/00/labels.txt line 6"),
        ("malformed line", f"{folder}/00/8.eng"),
        ("malformed line", f"{folder}/00/9.eng"),
        ("empty text", f"{folder}/00/10.eng"),
        ("duplicate id", f"{folder}/02/25.eng"),
        ("missing image", f"{data}/images/01/1004.jpg ({folder}/01/1004.eng)"),
    }
    assert "line 3: <TITLE> is not closed by </TITLE>" in str(caught.value)
    assert "line 2: the end is reached without a <DOCNO>" in str(caught.value)
    assert load(on_problem="skip").ids.tolist() == ["7", "25"]


def test_what_is_missing_is_named(tmp_path, load):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "iaprtc12.tgz").write_bytes(b"")
    with pytest.raises(DataProblems) as caught:
        load()
    message = str(caught.value)
    assert "no folder annotations_complete_eng/ (extract iaprtc12.tgz first" in message
    assert "neither labels.csv nor labels.txt with wlist.txt" in message
