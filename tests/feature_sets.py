"""Made-up feature data sets on disk."""

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines import features


def make_set(folder, splits, class_names, without=()):
    """Writes split -> columns as a feature data set of one shard per split.

    Args:
        folder: of the data set.
        splits: split -> the keys of `features.schema` -> values.
        class_names: of the labels.
        without: fields that the schema shall lack, as that of an earlier version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lengths = {}
    for split, rows in splits.items():
        features.write_slice(features.shard_path(folder, split, 0, 1), rows)
        lengths[split] = [len(rows["label"])]
    shapes = {
        name: np.shape(values)[1:]
        for name, values in next(iter(splits.values())).items()
        if name.endswith(features.SUFFIX)
    }
    features.write_metadata(folder, lengths, shapes, class_names)
    if without:
        fields = dict(features.schema(shapes, class_names))
        kept = {name: f for name, f in fields.items() if name not in without}
        tfds.features.FeaturesDict(kept).save_config(folder)
