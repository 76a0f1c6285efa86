"""The names of files and folders in a store. They are defined only here.

Each run has a folder with the run's name:

    config.yaml               the whole resolved configuration, and the identity, whose hash is in the name
    status.json               the state and progress of the run
    history.jsonl             one line per epoch
    batchnorm.safetensors     gamma, beta, mean, variance of every BN layer at every epoch
    checkpoint.safetensors    the last saved state of training; removed when training is done
    model.safetensors         the trained model; if it exists, the run is trained
    evaluation/<id>/          outcomes.safetensors, and result.json, which is written last: if it exists, the
                              evaluation is done; cascade.safetensors is the saved state of an unfinished evaluation
    tracking.json             what was sent to W&B

The store also has the folders `sweeps/` (the records of sweeps), `logs/` (the output of local runs), `wandb/` (files of
W&B), `reports/` (reports), `.slurm/` (files that jobs read and write), `.locks/` (files that ensure that only one
process works on a run) and, for a moment, `.removed/` (what is being deleted).
"""

CONFIG = "config.yaml"
STATUS = "status.json"
HISTORY = "history.jsonl"
BATCHNORM = "batchnorm.safetensors"
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
TRACKING = "tracking.json"

EVALUATION = "evaluation"
OUTCOMES = "outcomes.safetensors"
RESULT = "result.json"
CASCADE = "cascade.safetensors"

SWEEPS = "sweeps"
LOGS = "logs"
REPORTS = "reports"
WANDB = "wandb"
SLURM = ".slurm"
LOCKS = ".locks"
REMOVED = ".removed"
