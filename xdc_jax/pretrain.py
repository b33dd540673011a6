r"""Pretrains a video and an audio encoder by deep clustering, without labels.

Example:
  xdc prepare --dataset=digits_tones --out=runs/digits_tones
  xdc pretrain --config=configs/digits_tones.py:method=xdc,k=64 \
      --data=runs/digits_tones --workdir=runs/xdc

Each iteration extracts features of every clip, clusters them, and trains the encoders
to predict the clusters that the method assigns to them. The workdir holds config.json,
metrics.jsonl, tensorboard/, checkpoints/, clusters/ and results.json. Started again
with the same arguments, a run that was interrupted goes on where it stopped and ends
with the same parameters.

On a TPU slice, start the same command on every host (`xdc launch` does), with --data
and --workdir that all of them see; elsewhere with --coordinator_address and so on. The
number of hosts may change when a run goes on.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from xdc_jax import config as config_lib
from xdc_jax import files, hosts, parallel, preemption, results
from xdc_jax.clustering import assignments as assignments_lib
from xdc_jax.clustering import sampling, targets
from xdc_jax.errors import UserError
from xdc_jax.training import optimizer, steps
from xdc_jax.training import state as state_lib
from xdc_jax.training import workdir as workdir_lib
from xdc_jax.training.extraction import extract
from xdc_jax.training.loop import TrainingLoop
from xdc_jax.training.probe import linear_probe

log = logging.getLogger(__name__)


class Pretraining:
    """One run of the deep-clustering loop."""

    def __init__(
        self, config: ConfigDict, clips: Any, workdir: epath.PathLike, mesh: Mesh
    ):
        """Checks the config, builds the networks and restores what there is.

        Args:
            config: see `config.pretrain_config`.
            clips: where clips come from; see `data_pipelines.clips.ClipData`.
            workdir: a new folder, or that of an interrupted run of this config.
            mesh: see `parallel.make_mesh`.
        """
        config_lib.check(config)
        parallel.check_batch_size(config.batch_size, mesh)
        self.config, self.clips, self.mesh = config, clips, mesh
        self.workdir = files.absolute(workdir)
        self.plan = targets.make_plan(config.method, config.same_modality)
        self.split = config.train_split
        self.truth = clips.labels(self.split)
        self.usable = clips.usable(self.split, self.plan.modalities)
        kept = clips.kept(self.split, **config.filter)
        self.num_filtered = int((self.usable & ~kept).sum())
        self.usable &= kept
        self.held_out = sampling.held_out(self.usable, config.held_out, config.seed)
        self.classes = self._count_classes()
        self._check_data()
        workdir_lib.claim(self.workdir, config, {"data": clips.fingerprint})

        self.iterations, self.epochs = config.iterations, config.epochs
        if config.method == "supervised":  # labels do not change: one long iteration
            self.iterations, self.epochs = 1, config.iterations * config.epochs
        self.steps_per_epoch = (
            config.clips_per_record * int((self.usable & ~self.held_out).sum())
        ) // config.batch_size
        if self.iterations and not self.steps_per_epoch:
            raise UserError(
                f"config.batch_size is {config.batch_size}, more than the clips of an "
                f"epoch; {int(self.usable.sum())} of {len(self.usable)} have "
                f"{' and '.join(self.plan.modalities)}"
            )

        self.networks, state = state_lib.create(config, self.plan)
        initial = parallel.replicate(state, mesh)
        self.extract_step = steps.compile_extract_step(mesh, self.networks)
        self.train_step = steps.compile_train_step(
            mesh, self.networks, optimizer.make(config.optimizer)
        )
        self.loop = TrainingLoop(
            self.workdir,
            config,
            mesh,
            initial,
            lambda: self._with_new_heads(initial, 0) if self.iterations else initial,
        )

    def run(self) -> dict[str, Any]:
        """Runs every iteration and returns the row of results.json."""
        try:
            return self._evaluate(self._iterate())
        finally:
            self.loop.close()

    def _iterate(self) -> Any:
        """Clusters and trains in turn; returns the clusters of the last iteration."""
        previous = None
        if self.loop.position.iteration:
            previous = self._load_clusters(self.loop.position.iteration - 1)
        for iteration in range(self.loop.position.iteration, self.iterations):
            found = self._cluster(iteration, previous)
            if self._is_at_start:
                self.loop.state = self._with_new_heads(self.loop.state, iteration)
            self._train(iteration, self._labels(found))
            previous = found
        return previous

    @property
    def _is_at_start(self) -> bool:
        """Whether no step of the iteration has been done."""
        return self.loop.position.epoch == self.loop.position.batch == 0

    def _cluster(self, iteration: int, previous: Any, plan=None) -> Any:
        """Extracts features and clusters them, unless that was done before."""
        plan = plan or self.plan
        file = assignments_lib.path(self.workdir, iteration)
        if hosts.agreed(file.exists()):
            found = assignments_lib.load(file)
        else:
            features = self._extract(self.split, np.flatnonzero(self.usable))
            found = assignments_lib.cluster(
                features,
                self.usable,
                plan,
                self.config.clustering,
                seed=self.config.seed + iteration,
                mesh=self.mesh,
            )
            found.metrics.update(assignments_lib.compare(found, previous, self.truth))
            if self.config.probe_every_iteration or iteration == self.iterations:
                found.metrics.update(self._probe(features))
            hosts.on_first(lambda: assignments_lib.save(file, found))
            measures = {
                key: value
                for key, value in found.metrics.items()
                if key.startswith(("nmi", "probe"))
            }
            log.info("iteration %d: %s", iteration, _text(measures))
        if self._is_at_start:
            self.loop.log.write(
                self.loop.step, {"iteration": iteration, **found.metrics}
            )
        return found

    def _load_clusters(self, iteration: int) -> Any:
        return assignments_lib.load(assignments_lib.path(self.workdir, iteration))

    def _extract(
        self, split: str, clip_ids: np.ndarray, interruptible: bool = True
    ) -> dict[str, Any]:
        return extract(
            self.extract_step,
            self.loop.state,
            self.networks,
            self.clips,
            split,
            self.mesh,
            batch_size=self.config.batch_size,
            clip_ids=clip_ids,
            interruptible=interruptible,
        )

    def _labels(self, found: Any) -> dict[str, np.ndarray]:
        """Returns the label tables that the heads of this run learn from."""
        tables = {**found.labels, targets.LABEL: self.truth}
        used = {name for heads in self.plan.heads.values() for name in heads}
        return {name: tables[name] for name in sorted(used)}

    def _with_new_heads(
        self, state: state_lib.TrainState, iteration: int
    ) -> state_lib.TrainState:
        state = state_lib.reset_heads(
            state, self.networks, self.classes, self.config, iteration
        )
        return parallel.replicate(state, self.mesh)

    def _train(self, iteration: int, labels: dict[str, np.ndarray]) -> None:
        """Trains until the epochs are used up or the held-out loss stops falling."""
        loop, config = self.loop, self.config
        position = loop.position
        device_labels = parallel.replicate(labels, self.mesh)
        rates = {
            name: dict.fromkeys(("body", "head"), self._learning_rate(modality))
            for name, modality in self.plan.encoders.items()
        }
        while position.iteration == iteration:
            values = self._train_epoch(labels, device_labels, rates)
            if config.held_out:
                loss = self._held_out_loss(labels)
                values = {**values, **loss}
                total = sum(loss.values())
                improved = total < position.best_loss
                position.best_loss = min(position.best_loss, total)
                position.stale_epochs = 0 if improved else position.stale_epochs + 1
            loop.log.write(
                loop.step, {"iteration": iteration, "epoch": position.epoch, **values}
            )
            log.info(
                "iteration %d, epoch %d: %s",
                iteration,
                position.epoch,
                _text({**values, **loop.timing}),
            )
            plateau = config.patience and position.stale_epochs >= config.patience
            position.epoch, position.batch = position.epoch + 1, 0
            if position.epoch == self.epochs or plateau:
                position.iteration, position.epoch = iteration + 1, 0
                position.best_loss, position.stale_epochs = float("inf"), 0
            loop.save()

    def _learning_rate(self, modality: str) -> Callable[[int], float]:
        return optimizer.learning_rate(
            self.config.optimizer,
            self.config.optimizer[f"lr_{modality}"],
            batch_size=self.config.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
        )

    def _train_epoch(self, labels, device_labels, rates) -> dict[str, float]:
        """Trains to the end of the epoch; returns the metrics of its last step."""
        position, config = self.loop.position, self.config
        epoch = position.iteration * self.epochs + position.epoch
        draws = sampling.draws(
            self.usable & ~self.held_out,
            list(labels.values()),
            clips_per_record=config.clips_per_record,
            balanced=config.clustering.balanced,
            seed=config.seed,
            epoch=epoch,
        )
        batches = self.clips.train_batches(
            self.split,
            batch_size=config.batch_size,
            epoch=epoch,
            draws=draws,
            start_batch=position.batch,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return self.loop.train_epoch(
            self.train_step,
            batches,
            self.plan.modalities,
            device_labels,
            rates,
            num_steps=self.steps_per_epoch,
            description=f"iteration {position.iteration + 1}/{self.iterations}, "
            f"epoch {position.epoch + 1}/{self.epochs}",
        )

    def _held_out_loss(self, labels: dict[str, np.ndarray]) -> dict[str, float]:
        """Returns the cross-entropy of each head on the held-out clips."""
        ids = np.flatnonzero(self.held_out)
        features = self._extract(self.split, ids, interruptible=False)
        return {
            f"held_out_loss/{name}/{target}": steps.mean_loss(
                head, features[name], labels[target][ids]
            )
            for name, encoder in self.loop.state.encoders.items()
            for target, head in encoder.heads.items()
        }

    def _probe(self, features: dict[str, Any]) -> dict[str, float]:
        """Returns encoder -> accuracy of a linear probe, where there are labels.

        Args:
            features: of the usable clips.
        """
        test_split = self.config.test_split
        if test_split not in self.clips.splits:
            return {}
        test_usable = self.clips.usable(test_split, self.plan.modalities)
        test_truth = self.clips.labels(test_split)[test_usable]
        truth = self.truth[self.usable]
        if len(np.unique(truth[truth >= 0])) < 2 or not (test_truth >= 0).any():
            return {}
        test = self._extract(test_split, np.flatnonzero(test_usable))
        return {
            f"probe/{name}": linear_probe(
                hosts.gather(features[name])[: len(truth)],
                truth,
                hosts.gather(test[name])[: len(test_truth)],
                test_truth,
            )
            for name in features
        }

    def _evaluate(self, previous: Any) -> dict[str, Any]:
        """Clusters and probes the final features; writes and returns the results."""
        encoders = self.plan.encoders
        each = dataclasses.replace(
            self.plan, clusterings={name: (name,) for name in encoders}
        )
        metrics = self._cluster(self.iterations, previous, each).metrics
        if self.loop.checkpoints.latest_step() is None:  # random encoders
            self.loop.save()
        row = {
            "data": epath.Path(self.clips.data_dir).name,
            "method": self.config.method if self.iterations else "random",
            "seed": self.config.seed,
            "video_probe": metrics.get("probe/video"),
            "audio_probe": metrics.get("probe/audio"),
            "nmi_video": metrics.get("nmi/video/labels"),
            "nmi_audio": metrics.get("nmi/audio/labels"),
            "seconds": round(self.loop.seconds, 1),
        }
        hosts.on_first(lambda: results.write(self.workdir / "results.json", [row]))
        return row

    def _count_classes(self) -> dict[str, dict[str, int]]:
        """Returns encoder -> head -> number of classes."""
        counts = assignments_lib.num_clusters(self.plan, self.config.clustering)
        counts[targets.LABEL] = len(self.clips.class_names)
        return {
            name: {target: counts[target] for target in heads}
            for name, heads in self.plan.heads.items()
        }

    def _check_data(self) -> None:
        if self.num_filtered:
            log.warning("config.filter leaves out %d clips", self.num_filtered)
        skipped = int((~self.usable).sum()) - self.num_filtered
        if skipped:
            log.warning(
                "%d of %d clips of split %s lack %s and are left out",
                skipped,
                len(self.usable),
                self.split,
                " or ".join(self.plan.modalities),
            )
        if self.config.method == "supervised" and not (self.truth >= 0).any():
            raise UserError(
                f"config.method is supervised, but no clip of split {self.split} has a "
                "label; add a label column to the manifest and prepare again"
            )


def _text(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.3f}" for key, value in values.items())


def pretrain(
    config: ConfigDict, clips: Any, workdir: epath.PathLike, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Runs (or goes on with) a pretraining job; returns its row of results.json."""
    mesh = parallel.make_mesh() if mesh is None else mesh
    return Pretraining(config, clips, workdir, mesh).run()


def define_flags() -> None:
    """Defines the flags of this verb."""
    config_flags.DEFINE_config_file(
        "config", None, "File with get_config(arg), as FILE.py or FILE.py:key=value,..."
    )
    flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
    flags.DEFINE_string("workdir", None, "Folder of the run, or gs://...; is made.")
    flags.mark_flags_as_required(["config", "data", "workdir"])
    hosts.define_flags()


def main() -> None:
    """Runs the verb."""
    from data_pipelines import clips as clips_lib
    from data_pipelines import shards

    preemption.watch()
    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    hosts.connect()
    config = flags.FLAGS.config
    config_lib.check(config)
    spec = clips_lib.ClipSpec(**config.clip)
    plan = targets.make_plan(config.method, config.same_modality)
    prepared = shards.open_prepared(files.absolute(flags.FLAGS.data))
    clips = clips_lib.ClipData(prepared, spec, config.seed, plan.modalities)
    row = pretrain(config, clips, flags.FLAGS.workdir)
    if hosts.is_first():
        json.dump(row, sys.stdout, indent=2)
        print()
