"""Patches: real `git apply`, and nothing a plan's patch could do to the judge or outside of its bundle."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golfctl.errors import HostError, InputErrors
from golfctl.store import bases, patches
from golfctl.store.tree import Entry, Tree
from tests.golfctl import plankit

TREE = Tree({"train.py": Entry(b"a\nb\nc\nd\ne\n"), "evaluate/bpb.py": Entry(b"x\n"), "artifact.py": Entry(b"y\n")})
PROTECTED = ("evaluate/*", "artifact.*", "artifact/*")
GOOD = "--- a/train.py\n+++ b/train.py\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n"


def apply(text: str, tree: Tree = TREE, inside: str = "") -> Tree:
    return patches.apply(tree, text.encode(), "plans/patches/x.patch", PROTECTED, inside)


def refused(text: str, inside: str = "") -> list[str]:
    return plankit.refusals(apply, text, TREE, inside)


@pytest.mark.service
def test_patch_applies_as_git_does() -> None:
    """Context may have moved; the other files stay; new files come without an executable bit."""
    after = apply(GOOD.replace("-2,3 +2,3", "-3,3 +3,3"))
    assert after.files["train.py"].content == b"a\nb\nC\nd\ne\n"
    assert after.changed(TREE) == ["train.py"]
    new = apply("--- /dev/null\n+++ b/more/new.py\n@@ -0,0 +1 @@\n+x = 1\n")
    assert new.files["more/new.py"] == Entry(b"x = 1\n")
    gone = apply("--- a/train.py\n+++ /dev/null\n@@ -1,5 +0,0 @@\n-a\n-b\n-c\n-d\n-e\n")
    assert "train.py" not in gone.files


@pytest.mark.service
def test_patch_that_does_not_apply_names_the_hunk() -> None:
    """file:line of the hunk in the patch, and of the code it expected."""
    text = GOOD + "@@ -4,2 +4,2 @@\n d\n-zzz\n+e2\n"
    assert refused(text) == [
        "plans/patches/x.patch:8:1 does not apply: the code reads differently at train.py:4; nothing was changed"
    ]
    missing = GOOD.replace("train.py", "trian.py")
    assert refused(missing) == [
        "plans/patches/x.patch:1:1 does not apply: trian.py: No such file or directory; nothing was changed"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("train.py", "evaluate/bpb.py"), "x.patch:1:1 refused: evaluate/bpb.py belongs to the judge"),
        (GOOD.replace("train.py", "Evaluate/BPB.py"), "x.patch:1:1 refused: Evaluate/BPB.py belongs to the judge"),
        (GOOD.replace("train.py", "artifact/__init__.py"), "x.patch:1:1 refused: artifact/__init__.py belongs to the"),
        (GOOD.replace("train.py", "settings.json"), "x.patch:1:1 refused: settings.json is written by golfctl"),
        (GOOD.replace("train.py", "../train.py"), "x.patch:1:1 refused: path '../train.py' leads out of the bundle"),
        (GOOD.replace("a/train.py", "a//etc/passwd"), "x.patch:1:1 refused: path '/etc/passwd' leads out"),
        (GOOD.replace("a/train.py", "train.py"), "x.patch:1:1 refused: path 'train.py' does not begin with a/"),
        (GOOD.replace("b/train.py", "b/other.py"), "x.patch:1:1 refused: a rename from train.py to other.py"),
        ("diff --git a/t b/t\nold mode 100644\nnew mode 100755\n" + GOOD, "x.patch:2:1 refused: a change of file mode"),
        ("diff --git a/l b/l\nnew file mode 120000\n" + GOOD, "x.patch:2:1 refused: a symbolic link"),
        ("diff --git a/l b/l\nnew file mode 100755\n" + GOOD, "x.patch:2:1 refused: a special file mode"),
        ("diff --git a/t b/u\nrename from t\nrename to u\n" + GOOD, "x.patch:2:1 refused: a rename"),
        ("diff --git a/t b/t\nGIT binary patch\nliteral 1\n" + GOOD, "x.patch:2:1 refused: binary content"),
        ('--- "a/t\\303.py"\n+++ b/t.py\n@@ -1 +1 @@\n-a\n+b\n', "x.patch:1:1 refused: a quoted file name"),
        ("hello\n", "x.patch holds no hunk"),
        ("", "x.patch holds no hunk"),
        ("--- a/t\n+++ b/t\n@@ -1,3 +1,3 @@\n-a\n+b\n", "x.patch:3:1 a hunk whose lines do not add up"),
        ("--- a/t\n+++ b/t\nnothing\n", "x.patch:1:1 a file without a hunk"),
    ],
)
def test_patch_refusals(text: str, message: str) -> None:
    """What no plan's patch may do is refused before git sees it."""
    assert any(message in line for line in refused(text)), refused(text)


def test_patch_outside_of_the_bases_folder_is_refused() -> None:
    """A file beside the trainer could shadow a module it imports."""
    (found,) = refused(GOOD.replace("train.py", "torch.py").replace("a/", "a/").strip("\n") + "\n", inside="trainer/")
    assert "torch.py lies outside of trainer/" in found


@pytest.mark.service
def test_patch_header_tricks_are_caught_by_comparing_the_trees() -> None:
    """A file that git makes from a header alone never meets the parser; the result is compared all the same."""
    trick = "diff --git a/evaluate/extra.py b/evaluate/extra.py\nnew file mode 100644\nindex 0000000..e69de29\n"
    trick += "diff --git a/train.py b/train.py\n" + GOOD
    assert refused(trick) == [
        "plans/patches/x.patch refused: evaluate/extra.py belongs to the judge, and the judge is not the judged"
    ]


@pytest.mark.service
def test_patch_ignores_repositories_and_configuration_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary folder inside a repository and a person's git settings change nothing."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "config").write_text("[apply]\n\twhitespace = error-all\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tree = Tree({"one.py": Entry(b"a\n")})
    after = patches.apply(tree, b"--- a/one.py\n+++ b/one.py\n@@ -1 +1 @@\n-a\n+b  \n", "x", (), "")
    assert after.files["one.py"].content == b"b  \n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "config"]


def test_patch_without_git_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one program besides Python that plans may need."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="git: not found; patches are applied with `git apply`"):
        patches.apply(
            Tree({"nogit.py": Entry(b"a\n")}), b"--- a/nogit.py\n+++ b/nogit.py\n@@ -1 +1 @@\n-a\n+b\n", "x", (), ""
        )


def test_hunk_ranges_cover_changed_lines_only() -> None:
    """Context is not touched; insertions have an empty old range."""
    text = "--- a/t\n+++ b/t\n@@ -10,4 +10,5 @@\n ctx\n-old\n+new\n+more\n ctx\n ctx\n@@ -30,0 +32,2 @@\n+x\n+y\n"
    (item,) = patches.parse(text.encode(), "p")
    assert [(hunk.line, hunk.removed, hunk.added, hunk.offset) for hunk in item.hunks] == [
        (3, (11, 12), (11, 13), 1),
        (10, (31, 31), (32, 34), 2),
    ]


LINES = st.sampled_from(
    ["--- a/t\n", "+++ b/t\n", "@@ -1 +1 @@\n", "@@ -0,0 +1,9 @@\n", "-a\n", "+b\n", " c\n", "\\ No\n", "\n", "é"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=12).map("".join).map(str.encode) | st.binary(max_size=60))
def test_patch_parser_takes_any_bytes(content: bytes) -> None:
    """Hunks or InputErrors, nothing else."""
    try:
        found = patches.parse(content, "p")
    except InputErrors as error:
        assert error.problems
    else:
        assert all(item.hunks for item in found)


@pytest.mark.service
def test_trainer_judge_can_not_be_patched(tmp_path: Path) -> None:
    """Every file of the bundled judge, and every name that would shadow it, is refused."""
    from golfctl.store.init import create

    base = bases.load(create(tmp_path / "golf", "cpu-demo"), "tiny-bytes")
    judge = [path for path in base.tree.files if path.startswith(("trainer/evaluate/", "trainer/data/"))]
    judge += ["trainer/contract.py", "trainer/artifact.py", "trainer/score.py", "trainer/artifact/__init__.py"]
    judge += ["trainer/opened.py", "trainer/probe.py"]
    judge += ["trainer/score.so", "trainer/evaluate.py", "trainer/packing/rans.py", "trainer/packing.py"]
    for path in judge:
        assert patches.forbidden(path, base.protected, "trainer/"), path
    for path in ("trainer/config.py", "trainer/model/gpt.py", "trainer/train.py"):
        assert patches.forbidden(path, base.protected, "trainer/") is None
