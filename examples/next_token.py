"""A causal language model: its classes are the vocabulary, and each position of a text is an example of the next word.

A GPT-2 of the smallest kind, made from a configuration, learns a chapter of Python's language reference by heart; the
text comes with Python (pydoc_data.topics). There are more classes than features, so that no simplex can form, but
features before the same next word gather (NC1, CDNV), the classifier's rows turn towards their means (alignment), and
the model comes to decide like the nearest mean (NC4); see Wu & Papyan, "Linguistic Collapse" (NeurIPS 2024).

    pip install -e '.[transformers]'
    python examples/next_token.py    # about 10 s on one core
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from pydoc_data.topics import topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments

import neuralcollapse as nc
from neuralcollapse.integrations.transformers import NeuralCollapse

CHAPTER, LENGTH, VOCABULARY = "string-methods", 32, 300
METRICS = ["cdnv", "alignment_distance"]


def sequences() -> list[dict[str, torch.Tensor]]:
    """Runs of words as numbers; a word that is not frequent can be read but need not be foretold, hence −100."""
    words = re.findall(r"\w+", topics[CHAPTER].lower())
    frequent = Counter(words).most_common(VOCABULARY - 1)
    number = {word: rank for rank, (word, _) in enumerate(frequent, start=1)}
    tokens = torch.tensor([number.get(word, 0) for word in words])
    runs = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    return [{"input_ids": run, "labels": run.where(run > 0, -100)} for run in runs]


def main() -> None:
    """Train, and print a row a measurement."""
    parser = argparse.ArgumentParser(description="Neural Collapse in next-token prediction.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="epochs between measurements")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    train = sequences()
    size = {"n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 2}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **size, **off))
    whole = {name: torch.stack([run[name] for run in train]) for name in train[0]}
    before = nc.measure(model, [whole], next_token=True, metrics=METRICS)

    with tempfile.TemporaryDirectory() as folder:  # the trainer wants one; nothing is kept
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=16,
                learning_rate=5e-3,
                weight_decay=0.1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=train,
        )
        trainer.remove_callback(PrinterCallback)
        collapse = NeuralCollapse(trainer, every=arguments.every, next_token=True, metrics=METRICS)
        trainer.add_callback(collapse)
        trainer.train()

    print(f"{before.num_examples} positions, {before.classes_present} words, {before.dim} features\n")
    print("epoch  accuracy  nearest mean       NC1      CDNV  alignment       NC4")
    for line in [{"epoch": 0, **before.to_dict()}, *collapse.history]:
        print(
            f"{line['epoch']:5}  {line['accuracy']:8.2%}  {line['nearest_mean_accuracy']:12.2%}  {line['nc1']:8.4f}"
            f"  {line['cdnv']:8.4f}  {line['alignment_distance']:9.4f}  {line['nc4_mismatch']:8.2%}"
        )


if __name__ == "__main__":
    main()
