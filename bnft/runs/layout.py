"""The names of files and folders in a store; the only place where they stand.

A run has a folder, named by what the run computes:

    config.yaml               the whole resolved configuration, and the identity that the name is the hash of
    status.json               where the run stands, rewritten as it goes
    history.jsonl             one line per epoch
    batchnorm.safetensors     gamma, beta, mean, variance of every BN layer at every epoch
    checkpoint.safetensors    the newest state that training can go on from; gone when training is done
    model.safetensors         the trained model; its presence means "trained"
    evaluation/<id>/          outcomes.safetensors and result.json, written last: its presence means "done";
                              cascade.safetensors while the evaluation goes on
    tracking.json             what W&B has of the run

Beside the runs, `sweeps/` records what was asked for together, `logs/` has what local runs print, `wandb/` belongs to
W&B, `reports/` has reports, `.slurm/` has what jobs need and write, and `.locks/` keeps two processes from one run.
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
