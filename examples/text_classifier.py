"""The Transformers callback on a text classifier: which chapter of Python's language reference is a passage from?

The text comes with Python itself (pydoc_data.topics); the model is a BERT of the smallest kind, made from a
configuration and trained from nothing. Passages of one chapter gather at one point in front of the classifier (NC1
falls ten thousandfold), while the chapters' points stay away from a simplex (NC2 angle).

    pip install -e '.[transformers]'
    python examples/text_classifier.py    # about 12 s on one core
    python examples/text_classifier.py --report nc.html --figure nc1.pdf    # and, with the extra lab, two files to see
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

import neuralcollapse as nc
from neuralcollapse.integrations.transformers import NeuralCollapse

CHAPTERS = ("compound", "types", "formatstrings", "string-methods", "debugger")
LENGTH, VOCABULARY = 32, 1000

Example = dict[str, torch.Tensor]


def passages() -> tuple[list[Example], list[Example]]:
    """Runs of 32 words and their chapters, to train on and, every fifth, to test on; words are their ranks."""
    chapters = [re.findall(r"\w+", topics[name].lower()) for name in CHAPTERS]
    frequent = Counter(word for words in chapters for word in words).most_common(VOCABULARY - 1)
    number = {word: rank for rank, (word, _) in enumerate(frequent, start=1)}  # 0 is every other word
    examples = [
        {
            "input_ids": torch.tensor([number.get(word, 0) for word in words[start : start + LENGTH]]),
            "labels": torch.tensor(label),
        }
        for label, words in enumerate(chapters)
        for start in range(0, len(words) - LENGTH + 1, LENGTH)
    ]
    test = examples[::5]
    return [example for index, example in enumerate(examples) if index % 5], test


def batches(examples: list[Example]) -> list[Example]:
    """All in one batch, for measuring before and after."""
    return [{name: torch.stack([example[name] for example in examples]) for name in examples[0]}]


def main() -> None:
    """Train, and print a row an epoch and the accuracy on passages not seen."""
    parser = argparse.ArgumentParser(description="Neural Collapse of a text classifier.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--report", type=Path, help="HTML file in which the training is explored")
    parser.add_argument("--figure", type=Path, help="picture of NC1 over the epochs, such as nc1.pdf")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    train, test = passages()
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=VOCABULARY, num_labels=len(CHAPTERS), max_position_embeddings=LENGTH, **size)
    model = BertForSequenceClassification(config)
    before = nc.measure(model, batches(train))

    with tempfile.TemporaryDirectory() as folder:  # the trainer wants one; nothing is kept
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=16,
                learning_rate=1e-3,
                weight_decay=0.1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=train,
        )
        trainer.remove_callback(PrinterCallback)
        collapse = NeuralCollapse(trainer, class_names=CHAPTERS)
        trainer.add_callback(collapse)
        trainer.train()

    print("epoch  accuracy       NC1  NC2 angle       NC3       NC4")
    for line in [{"epoch": 0, **before.to_dict()}, *collapse.history]:
        print(
            f"{line['epoch']:5}  {line['accuracy']:8.2%}  {line['nc1']:8.4f}  {line['nc2.maximal_angle_means']:9.4f}"
            f"  {line['nc3']:8.4f}  {line['nc4_mismatch']:8.2%}"
        )
    unseen = nc.measure(model, batches(test))
    print(f"{before.num_examples} passages; of {unseen.num_examples} others {unseen.accuracy:.0%} find their chapter")
    history = nc.History.from_monitor(collapse, run="chapters", loss="ce")
    if arguments.report is not None:
        history.report(arguments.report)
    if arguments.figure is not None:
        history.plot("nc1").figure.savefig(arguments.figure)


if __name__ == "__main__":
    main()
