import pytest

from data_pipelines import datasets, sources
from xdc_jax.errors import UserError


@pytest.fixture
def tree(tmp_path):
    """Two classes of one clip each, in class folders."""
    for name in ("train/cat/a.mp4", "test/dog/b.mp4"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text("xy")
    return tmp_path / "data"


def identity(tree, name="class_folders", **options):
    return sources.dataset_source(name, data_dir=str(tree), **options).identity


def test_a_found_data_set_is_its_name_and_its_rows(tree):
    found = identity(tree)
    assert found.keys() == {"dataset", "rows"}
    assert found["dataset"] == "class_folders"
    assert identity(tree, seed=3) == found
    (tree / "train" / "cat" / "a.mp4").write_text("xyz")
    resized = identity(tree)
    assert resized != found
    (tree / "train" / "cat" / "a.mp4").rename(tree / "train" / "cat" / "c.mp4")
    assert identity(tree) not in (found, resized)


def test_a_found_data_set_gives_its_manifest_and_writes_nothing(tree, tmp_path):
    source = sources.dataset_source("class_folders", data_dir=str(tree))
    rows = source.manifest(tmp_path / "media").rows
    assert [(row.path, row.location) for row in rows] == [
        ("test/dog/b.mp4", str(tree / "test/dog/b.mp4")),
        ("train/cat/a.mp4", str(tree / "train/cat/a.mp4")),
    ]
    assert not (tmp_path / "media").exists()


def test_a_moved_tree_is_the_same_preparation(tree, tmp_path):
    before = identity(tree)
    assert identity(tree.rename(tmp_path / "moved")) == before


def test_partitions_are_part_of_the_identity(tmp_path):
    found = []
    for text in ("train/test", "test/train", ""):
        (tmp_path / "m.csv").write_text(f"path,partitions\na.mp4,{text}\n")
        found.append(sources.manifest_source(tmp_path / "m.csv").identity["rows"])
    assert len(set(found)) == 3


def test_what_was_prepared_before_partitions_came_is_still_the_same(tmp_path):
    (tmp_path / "a.mp4").write_text("abc")
    (tmp_path / "m.csv").write_text(
        "path,label,split,start_s,end_s,fold\na.mp4,dog,test,1.5,3,2\nb.mp4,,,,,\n"
    )
    # From the commit before `Row.partitions`.
    expected = {"rows": "8c8457dac9d923a84828336de73d64b7"}
    assert sources.manifest_source(tmp_path / "m.csv").identity == expected


def test_the_seed_is_part_of_the_identity_where_it_is_used(tmp_path):
    assert datasets.FOUND.keys() >= datasets.SEEDED
    youtube_id = "abcdefghijk"
    (tmp_path / f"{youtube_id}_0.mp4").touch()
    (tmp_path / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n0,m,x\n"
    )
    for name in ("unbalanced_train", "eval"):
        (tmp_path / f"{name}_segments.csv").write_text(f'{youtube_id}, 0, 10, "m"\n')
    seeds = [identity(tmp_path, "audioset240k", seed=seed) for seed in (0, 1, 1)]
    assert [found["seed"] for found in seeds] == [0, 1, 1]
    assert seeds[0] != seeds[1] == seeds[2]


def test_the_data_sets_have_distinct_names_in_order():
    for names in (list(datasets.MADE), list(datasets.FOUND)):
        assert names == sorted(names)
    assert not datasets.MADE.keys() & datasets.FOUND.keys()


@pytest.mark.parametrize("name", sorted(datasets.FOUND))
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "{name}: give --data_dir, the folder"),
        ({"data_dir": "/nowhere"}, "/nowhere: expected a folder with .*found nothing"),
        ({"data_dir": "/", "num_train": 3}, "are made; {name} has fixed splits"),
        ({"data_dir": "/", "num_test": 3}, "are made; {name} has fixed splits"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message.format(name=name)):
        sources.dataset_source(name, **options)


def test_an_unknown_data_set_is_an_error_that_lists_the_known():
    with pytest.raises(UserError, match="'ucf102', expected one of audioset, .*ucf101"):
        sources.dataset_source("ucf102")
