"""nc.History: what was measured over epochs as one table, whoever measured it.

Reads run directories of `neuralcollapse run`, studies, the lines of a Monitor, and the logs that the Lightning and
Transformers callbacks leave. Without a path it reads the committed study: three networks on four data sets, MSE against
cross-entropy.

    pip install -e '.[frame]'                          # pandas
    python examples/read_history.py                    # the runs, and the last NC1 of each loss by data set and network
    python examples/read_history.py PATH --metric nc3  # of your own runs, or of a Lightning or Transformers log
"""

from __future__ import annotations

import argparse
from pathlib import Path

import neuralcollapse as nc

STUDY = Path(__file__).parents[1] / "results" / "paper-regime"


def main() -> None:
    """Print the runs, and one metric at the last measured epoch."""
    parser = argparse.ArgumentParser(description="Tables of what was measured over epochs.")
    parser.add_argument("paths", nargs="*", type=Path, default=[STUDY], help="runs, studies, files or logs")
    parser.add_argument("--metric", default="nc1")
    arguments = parser.parse_args()

    try:
        history = nc.History.read(arguments.paths)
        chosen = history.select(metric=arguments.metric)
    except nc.InputError as error:
        parser.error(str(error))
    print(history)

    table = chosen.to_frame()  # run, dataset, network, loss, seed, epoch, …, value
    last = table.sort_values("epoch").groupby(["run", "metric"]).tail(1)
    print(f"\n{arguments.metric} at the last measured epoch; the mean over seeds where there are several")
    means = last.pivot_table(index=["dataset", "network"], columns=["metric", "loss"], values="value")
    print(means.map("{:.3g}".format).to_string())

    runs = history.runs
    later = runs[runs["stays_zero_error"] > runs["first_zero_error"]]
    print(f"\nThe training error came back after its first zero in {len(later)} of {len(runs)} runs.")


if __name__ == "__main__":
    main()
