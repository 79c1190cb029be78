"""tars: each member's place without extraction; what is hostile or harmed is named and never read."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from vikdf import tars

LONG = "/".join(["l" * 60] * 4) + "/y.jpg"
FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **more) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for key, value in more.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def tar(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join([*parts, bytes(1024)]))
    return path


def plain(path: Path, names: list[str], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as stream:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 600 + len(name)
            stream.addfile(member, io.BytesIO(name[:1].encode()[:1] * member.size))
    return path


def found(path: Path) -> list[tuple[str, str]]:
    return [(member.name, member.bad) for member in tars.members(path)]


@pytest.mark.parametrize("form", FORMS)
def test_names_places_and_sizes_are_those_that_tarfile_finds(tmp_path, form):
    names = ["a/b.jpg", "a/b.json", "ü.png"] + [LONG] * (form != "ustar")
    path = plain(tmp_path / "a.tar", names, FORMS[form])
    with tarfile.open(path) as stream:
        expected = [(member.name, member.offset_data, member.size, "") for member in stream]
    assert [(each.name, each.offset, each.size, each.bad) for each in tars.members(path)] == expected


def test_a_member_is_read_by_its_place(tmp_path):
    path = plain(tmp_path / "a.tar", ["a.jpg", "b.jpg"])
    with open(path, "rb") as stream:
        assert [tars.take(stream, member) for member in tars.members(path)] == [b"a" * 605, b"b" * 605]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../etc/passwd", "unsafe_name"),
        ("a/../../b.jpg", "unsafe_name"),
        ("/etc/passwd", "unsafe_name"),
        ("..", "unsafe_name"),
        ("..\\b.jpg", "unsafe_name"),
        ("c:\\b.jpg", "unsafe_name"),
        ("b\udcff.jpg", "name_not_utf8"),
        ("..b.jpg", ""),
        ("./b.jpg", ""),
    ],
)
def test_a_name_that_points_elsewhere_is_named_and_the_next_member_is_sound(tmp_path, name, reason):
    path = tar(tmp_path / "a.tar", header(name), header("next.jpg"))
    assert [bad for _, bad in found(path)] == [reason, ""]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
    ],
)
def test_what_is_no_plain_file_is_named(tmp_path, kind, reason):
    path = tar(tmp_path / "a.tar", header("a.jpg", kind=kind, linkname="/etc/passwd"), header("next.jpg"))
    assert found(path) == [("a.jpg", reason), ("next.jpg", "")]
    with open(path, "rb") as stream, pytest.raises(ValueError, match="is not to be read"):
        tars.take(stream, next(tars.members(path)))


def test_a_name_that_some_readers_see_the_beginning_of_is_named(tmp_path):
    about = b"23 path=b.jpg\0.html ab\n"
    long = header("x", kind=tarfile.XHDTYPE, size=len(about)) + about.ljust(512, b"\0")
    assert found(tar(tmp_path / "a.tar", long, header("next.jpg"))) == [("b.jpg\0.html ab", "unsafe_name")]


def test_folders_are_passed_over(tmp_path):
    assert found(tar(tmp_path / "a.tar", header("a", kind=tarfile.DIRTYPE), header("a/b.jpg"))) == [("a/b.jpg", "")]


def test_of_a_tar_cut_anywhere_what_is_whole_is_found_and_the_end_is_named(tmp_path):
    data = plain(tmp_path / "a.tar", ["a.jpg", "b.jpg", "c.jpg"]).read_bytes()
    ends = [512 + 1024, 2 * 1536, 3 * 1536]  # of a member: a header and two blocks
    for cut in range(512, ends[-1], 100):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        members = list(tars.members(tmp_path / "cut.tar"))
        sound = sum(cut >= end - 1024 + 605 for end in ends)
        assert [member.bad for member in members] == [""] * sound + ["truncated"], cut


@pytest.mark.parametrize("size", [1 << 40, -5], ids=["larger than the tar", "negative"])
def test_a_size_that_lies_ends_the_tar_by_name(tmp_path, size):
    reason = "truncated" if size > 0 else "damaged_header"
    assert found(tar(tmp_path / "a.tar", header("a.jpg"), header("b.jpg", size))) == [("a.jpg", ""), ("b.jpg", reason)]


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    damaged = bytearray(header("b.jpg"))
    damaged[3] ^= 1
    assert found(tar(tmp_path / "a.tar", header("a.jpg"), bytes(damaged))) == [("a.jpg", ""), ("", "damaged_header")]


def test_what_follows_the_end_is_named(tmp_path):
    path = tar(tmp_path / "a.tar", header("a.jpg"), bytes(1024), header("hidden.jpg"))
    assert found(path) == [("a.jpg", ""), ("", "more_after_the_end")]


def test_thousands_of_long_name_headers_are_walked_without_recursion(tmp_path):
    chain = header("x", 2, tarfile.GNUTYPE_LONGNAME) + b"y\0".ljust(512, b"\0")
    assert found(tar(tmp_path / "a.tar", chain * 3000, header("a.jpg"))) == [("y", "")]


def test_a_long_name_of_a_gigabyte_is_not_held_in_memory(tmp_path):
    path = tmp_path / "a.tar"
    with open(path, "wb") as stream:
        stream.write(header("x", 1 << 30, tarfile.GNUTYPE_LONGNAME))
        stream.truncate(1 << 31)  # sparse: no disk is used
    assert [bad for _, bad in found(path)] == ["truncated"]


def test_any_altered_tar_is_walked_to_an_end_and_no_place_lies_outside(tmp_path):
    data, path = (
        plain(tmp_path / "a.tar", ["a.jpg", LONG, "b.jpg"], tarfile.PAX_FORMAT).read_bytes(),
        tmp_path / "b.tar",
    )
    for seed in range(300):
        lots, altered = random.Random(seed), bytearray(data)
        for _ in range(lots.randrange(1, 30)):
            altered[lots.randrange(512 * 8)] = lots.randrange(256)
        path.write_bytes(altered)
        try:
            members = list(tars.members(path))
        except ValueError as error:
            assert "is not a tar" in str(error)
            continue
        assert all(0 <= each.offset and each.offset + each.size <= len(altered) for each in members)


@pytest.mark.parametrize(("data", "said"), [(b"hello" * 200, "is not a tar"), (b"", "is not a tar")])
def test_what_is_no_tar_is_one_sentence(tmp_path, data, said):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        list(tars.members(tmp_path / "a.tar"))


def test_a_compressed_tar_is_refused_with_its_kind(tmp_path):
    path = plain(tmp_path / "a.tar", ["a.jpg"])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match="a.tar is compressed .gzip.*unpack it once"):
        list(tars.members(path))


def test_samples_are_the_members_that_stand_together_under_one_key(tmp_path):
    path = plain(tmp_path / "a.tar", ["d/1.jpg", "d/1.json", "../x", "d/2.seg.PNG", "d/2.txt", "d/2.txt"])
    groups = [(key, sorted(parts)) for key, parts in tars.samples(tars.members(path))]
    assert groups == [
        ("d/1", ["jpg", "json"]),
        ("", ["unsafe_name"]),
        ("d/2", ["seg.png", "txt"]),
        ("d/2", ["txt"]),
    ]


def test_the_length_of_a_tar_is_known_before_it_is_closed(tmp_path):
    for sizes in ([0], [1], [512, 513], [9000], [300] * 40):
        made = tars.Tar(tmp_path / "a.tar")
        for number, size in enumerate(sizes[:-1]):
            made.add(f"{number}.jpg", bytes(size))
        told = made.bytes_with(sizes[-1:])
        made.add("last.jpg", bytes(sizes[-1]))
        made.close()
        assert (tmp_path / "a.tar").stat().st_size == told
