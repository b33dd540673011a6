r"""Trains an encoder on a labelled data set, and tests it.

Examples:
  xdc finetune --config=configs/finetune_ucf101.py --data=data/ucf101 \
      --weights=r2plus1d_18_xdc_audioset --workdir=runs/ucf101_xdc
  xdc finetune --config=configs/finetune_esc50.py:train=fc_only --data=data/esc50 \
      --weights=runs/xdc_kinetics --parts=1+2 --workdir=runs/esc50_fc
  xdc finetune --config=configs/finetune_hmdb51.py --data=data/hmdb51 \
      --weights=scratch --workdir=runs/hmdb51_scratch

--weights is a run of `xdc pretrain` (of method=supervised for that baseline), what
`xdc convert` wrote or reads, or `scratch`: random weights. With train=full all weights
are trained, with train=fc_only the classifier on a frozen encoder.

Official splits or folds, or else splits train and test (or val), divide the data; each
part is a run of its own in a folder of the workdir, with checkpoints/, metrics.jsonl,
and encoder/, which `xdc extract --weights=` reads. Started again, finished parts are
kept and an interrupted one goes on where it stopped. results.json has a row per part:
top-1 and top-5 accuracy of single clips, and of videos, whose softmax scores are
averaged over config.test_clips evenly spread clips of each record of the video.
"""

import dataclasses
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict, config_flags

from xdc_jax import convert, finetune_config, hosts, parallel, preemption, results
from xdc_jax.clustering import targets
from xdc_jax.errors import UserError
from xdc_jax.evaluation import labelled, partition, scores
from xdc_jax.evaluation.partition import Part
from xdc_jax.files import absolute, write_atomically
from xdc_jax.training import extraction, optimizer, steps
from xdc_jax.training import state as state_lib
from xdc_jax.training import workdir as workdir_lib
from xdc_jax.training.loop import TrainingLoop
from xdc_jax.weights import encoder_dir, layout, starting
from xdc_jax.weights.encoder_dir import SavedEncoder

log = logging.getLogger(__name__)

ROW_FILE = "row.json"
MEASURES = {
    "video_top1": "video top-1",
    "video_top5": "video top-5",
    "clip_top1": "clip top-1",
    "clip_top5": "clip top-5",
    "test_clips": "N",
    "seconds": "seconds",
}


class Finetuning:
    """Training and test on one part of a labelled data set."""

    def __init__(
        self,
        config: ConfigDict,
        clips: Any,
        part: Part,
        weights: SavedEncoder | None,
        workdir: epath.PathLike,
        mesh: Mesh,
    ):
        """Checks everything, builds the network and restores what there is.

        Args:
            config: see `finetune_config.finetune_config`.
            clips: where clips come from; see `data_pipelines.clips.ClipData`.
            part: which records train and which test.
            weights: of the encoder; None draws them from config.seed.
            workdir: a new folder, or that of an interrupted run of this config.
            mesh: see `parallel.make_mesh`.
        """
        finetune_config.check(config)
        parallel.check_batch_size(config.batch_size, mesh)
        starting.check(config, weights)
        self.config, self.clips, self.part, self.mesh = config, clips, part, mesh
        self.weights, self.workdir = weights, absolute(workdir)
        self.train_ids, self.test_ids = labelled.records(
            clips, part, config.modality, config.label_fraction, config.seed
        )
        self.steps_per_epoch = (
            config.clips_per_record * len(self.train_ids) // config.batch_size
        )
        if not self.steps_per_epoch:
            raise UserError(
                f"{part.name}: config.batch_size is {config.batch_size}, more than the "
                f"clips of an epoch: {config.clips_per_record} of each of "
                f"{len(self.train_ids)} records; lower it, or raise "
                "config.clips_per_record"
            )
        claim(self.workdir, config, clips, weights)

        modality = config.modality
        network, encoder = state_lib.create_encoder(
            config, config[f"{modality}_model"], modality, modality
        )
        if weights is not None:
            encoder = dataclasses.replace(
                encoder,
                params=weights.variables.params,
                batch_stats=weights.variables.batch_stats,
            )
        self.networks = {modality: network}
        initial = state_lib.reset_heads(
            state_lib.TrainState(jnp.int32(0), {modality: encoder}),
            self.networks,
            {modality: {targets.LABEL: len(clips.class_names)}},
            config,
            iteration=0,
        )
        initial = parallel.replicate(initial, mesh)
        self.train_step = steps.compile_train_step(
            mesh,
            self.networks,
            optimizer.make(config.optimizer),
            frozen=config.train == "fc_only",
        )
        self.extract_step = steps.compile_extract_step(mesh, self.networks)
        self.loop = TrainingLoop(self.workdir, config, mesh, initial, lambda: initial)

    def run(self) -> results.Row:
        """Trains what is left, tests, and returns the row of results."""
        try:
            self._train()
            row = self._row()
        finally:
            self.loop.close()
        encoder = self._encoder()

        def write() -> None:
            folder = self.workdir / "encoder"
            if not encoder_dir.is_encoder(folder):
                encoder_dir.save(folder, encoder)
            write_atomically(self.workdir / ROW_FILE, json.dumps(row).encode())

        hosts.on_first(write)
        return row

    def _train(self) -> None:
        config, position = self.config, self.loop.position
        labels = {targets.LABEL: self.clips.index(self.part.train_split).label}
        labels = parallel.replicate(labels, self.mesh)
        draws = np.zeros(self.clips.num_clips(self.part.train_split), np.int32)
        draws[self.train_ids] = config.clips_per_record
        peaks = {"body": config.optimizer.lr_body, "head": config.optimizer.lr_head}
        rates = {
            part: optimizer.learning_rate(
                config.optimizer,
                peak,
                batch_size=config.batch_size,
                steps_per_epoch=self.steps_per_epoch,
                epochs=config.epochs,
            )
            for part, peak in peaks.items()
        }
        while position.epoch < config.epochs:
            batches = self.clips.train_batches(
                self.part.train_split,
                batch_size=config.batch_size,
                epoch=position.epoch,
                draws=draws,
                start_batch=position.batch,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )
            values = self.loop.train_epoch(
                self.train_step,
                batches,
                (config.modality,),
                labels,
                {config.modality: rates},
                num_steps=self.steps_per_epoch,
                description=f"{self.part.name}, epoch "
                f"{position.epoch + 1}/{config.epochs}",
            )
            self.loop.log.write(self.loop.step, {"epoch": position.epoch, **values})
            text = [f"{k} {v:.3f}" for k, v in {**values, **self.loop.timing}.items()]
            log.info(
                "%s, epoch %d: %s", self.part.name, position.epoch, ", ".join(text)
            )
            position.epoch, position.batch = position.epoch + 1, 0
            self.loop.save()

    def clip_scores(self) -> Float[np.ndarray, "n classes"]:
        """Returns softmax scores of the clips of the test records, record by record.

        A record has `config.test_clips` of them, each the mean over its crops. Of
        several processes each does some of the records, and all get all scores.
        """
        from data_pipelines.views import Views

        config, (encoder,) = self.config, self.loop.state.encoders.values()
        head = jax.device_get(encoder.heads[targets.LABEL])
        per_record = config.test_clips * config.test_crops
        shares = np.array_split(self.test_ids, jax.process_count())
        own, most = shares[jax.process_index()], len(shares[0])
        rows = config.batch_size // jax.process_count()
        batches = self.clips.view_batches(
            self.part.test_split,
            Views(config.test_clips, config.test_crops),
            batch_size=rows,
            clip_ids=own,
            num_batches=-(-most * per_record // rows),
        )
        variables = {config.modality: (encoder.params, encoder.batch_stats)}
        found, ids = [], []
        for batch, out in extraction.run(
            self.extract_step, variables, self.networks, batches, self.mesh
        ):
            preemption.check()
            logits = steps.head_logits(head, out[config.modality])
            found.append(np.asarray(jax.nn.softmax(logits)))
            ids.append(batch["clip_id"][batch["mask"]])
        found, ids = np.concatenate(found), np.concatenate(ids)
        if (ids != np.repeat(own, per_record)).any():
            raise UserError(
                f"{self.part.name}: the data gave other test clips than asked for; "
                "were its files changed during the run?"
            )
        found = found.reshape(-1, config.test_crops, found.shape[-1]).mean(axis=1)
        padding = most * config.test_clips - len(found)
        everyone = hosts.gather(np.pad(found, ((0, padding), (0, 0))))
        everyone = everyone.reshape(len(shares), -1, found.shape[-1])
        return np.concatenate(
            [
                of_one[: len(share) * config.test_clips]
                for of_one, share in zip(everyone, shares, strict=True)
            ]
        )

    def _row(self) -> results.Row:
        config = self.config
        index = self.clips.index(self.part.test_split)
        of_clip = np.repeat(self.test_ids, config.test_clips)
        measured = scores.accuracies(
            self.clip_scores(), index.label[of_clip], index.video_id[of_clip]
        )
        train_videos = self.clips.index(self.part.train_split).video_id[self.train_ids]
        return {
            "verb": "finetune",
            "data": epath.Path(self.clips.data_dir).name,
            "part": self.part.name,
            "modality": config.modality,
            "train": config.train,
            **starting.pretraining(self.weights),
            "seed": config.seed,
            "label_fraction": config.label_fraction,
            "num_frames": config.clip.num_frames,
            "crop_size": config.clip.crop_size,
            "test_clips": config.test_clips,
            "test_crops": config.test_crops,
            "train_videos": len(np.unique(train_videos)),
            "test_videos": len(np.unique(index.video_id[self.test_ids])),
            **measured,
            "seconds": round(self.loop.seconds, 1),
        }

    def _encoder(self) -> SavedEncoder:
        """Returns the trained encoder with its classifier."""
        config, (encoder,) = self.config, self.loop.state.encoders.values()
        params, stats, head = jax.device_get(
            (encoder.params, encoder.batch_stats, encoder.heads[targets.LABEL])
        )
        spec = starting.model_spec(config)
        data, part = epath.Path(self.clips.data_dir).name, self.part.name
        name = starting.pretraining(self.weights)["pretraining"]
        return SavedEncoder(
            spec=spec,
            normalization=config.video_normalization,
            source=f"{starting.name(self.weights)}, finetuned on {data}, {part}",
            variables=layout.Variables(
                params, stats, head, layout.counters(spec, self.loop.step)
            ),
            clip=config.clip.to_dict(),
            pretraining={
                "name": f"{name}, finetuned on {data}, {part}",
                "seed": config.seed,
            },
        )


def finetune(
    config: ConfigDict,
    clips: Any,
    weights: SavedEncoder | None,
    workdir: epath.PathLike,
    parts: str = "all",
    mesh: Mesh | None = None,
) -> list[results.Row]:
    """Runs (or goes on with) the parts of a finetuning job; returns their rows."""
    finetune_config.check(config)
    mesh = parallel.make_mesh() if mesh is None else mesh
    workdir = absolute(workdir)
    splits = {split: clips.index(split) for split in clips.splits}
    folders = {
        part.name: workdir / part.name.replace(" ", "_")
        for part in partition.parts(splits, "all")
    }
    for folder in folders.values():
        if hosts.agreed((folder / ROW_FILE).exists()):
            # Its row stands beside those to come.
            claim(folder, config, clips, weights)
    rows = []
    for part in partition.parts(splits, parts):
        folder = folders.setdefault(part.name, workdir / part.name)
        row_file = folder / ROW_FILE
        if hosts.agreed(row_file.exists()):
            rows.append(json.loads(row_file.read_text()))
        else:
            job = Finetuning(config, clips, part, weights, folder, mesh)
            rows.append(job.run())
        # Of all parts that are done, by this call or another.
        files = [each / ROW_FILE for each in folders.values()]

        def write(files=files) -> None:
            done = [json.loads(file.read_text()) for file in files if file.exists()]
            results.write(workdir / "results.json", done)

        hosts.on_first(write)
    return rows


def claim(
    folder: epath.Path, config: ConfigDict, clips: Any, weights: SavedEncoder | None
) -> None:
    """Makes the folder of a part this job's; UserError if it is another's."""
    made_from = {"data": clips.fingerprint, "weights": starting.name(weights)}
    workdir_lib.claim(folder, config, made_from)


def define_flags() -> None:
    """Defines the flags of this verb."""
    config_flags.DEFINE_config_file(
        "config", None, "File with get_config(arg), as FILE.py or FILE.py:key=value,..."
    )
    flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
    flags.DEFINE_string("weights", None, "Run, encoder, released name, or `scratch`.")
    flags.DEFINE_string("workdir", None, "Folder of the runs; made if missing.")
    flags.DEFINE_string("parts", "all", "Numbers of official splits or folds: 1+3.")
    flags.mark_flags_as_required(["config", "data", "weights", "workdir"])
    hosts.define_flags()


def open_clips(config: ConfigDict, data_dir: epath.PathLike) -> Any:
    """Opens the clips of a prepared directory as a finetuning job wants them."""
    from data_pipelines import clips as clips_lib
    from data_pipelines import shards

    spec = clips_lib.ClipSpec(**config.clip)
    if config.modality == "audio":
        # A clip is as long as its sound, so that sounds are evenly spread in the test.
        spec = dataclasses.replace(spec, num_frames=1, fps=1 / spec.audio_duration_s)
    data_dir = absolute(data_dir)
    prepared = shards.open_prepared(data_dir)
    if absent := shards.num_absent(data_dir):
        log.warning(
            "%s: %d files of the data set are missing or were rejected; accuracies on "
            "the others do not compare with published ones",
            data_dir,
            absent,
        )
    return clips_lib.ClipData(prepared, spec, config.seed, (config.modality,))


def main() -> None:
    """Runs the verb."""
    preemption.watch()
    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    hosts.connect()
    args = flags.FLAGS
    config = args.config
    finetune_config.check(config)
    weights = None
    if args.weights != starting.SCRATCH:
        weights = convert.load(args.weights, config.modality)
    clips = open_clips(config, args.data)
    workdir = absolute(args.workdir)
    rows = finetune(config, clips, weights, workdir, args.parts)
    keys = ("data", "modality", "train", "pretraining")
    if hosts.is_first():
        print(results.table(rows, MEASURES, keys, "part"))
        print(f"\n{workdir / 'results.json'} is written.")
