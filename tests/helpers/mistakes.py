"""The likeliest mistakes in each framework, as the lines a user would write; docs/mistakes.md shows what each says."""

from __future__ import annotations

SETUP = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import neuralcollapse as nc
torch.manual_seed(0)
inputs, labels = torch.randn(30, 6), torch.arange(30) % 3
dataset = TensorDataset(inputs, labels)
loader = DataLoader(dataset, batch_size=10)
def network(last=3): return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, last))
model = network()
features, weight, bias = torch.randn(30, 8), torch.randn(3, 8), torch.randn(3)
def batches(inputs, labels): return [(inputs, labels)]
report = nc.measure(model, loader)
"""

PYTORCH = (
    "nc.measure(loader, model)",
    "nc.measure(model, (inputs, labels))",
    "nc.measure(model, dataset)",
    "nc.measure(model, iter(loader))",
    "nc.measure(model, DataLoader(inputs, batch_size=10))",
    "nc.measure(model, [])",
    "nc.measure(model, batches(inputs, labels.float() + 0.5))",
    "nc.measure(model, batches(inputs, torch.eye(3)[labels]))",
    "nc.measure(model, batches(inputs, labels + 1))",
    "nc.measure(model, batches(inputs, labels - 1))",
    "nc.measure(model, batches(inputs.numpy().tolist(), ['cat', 'dog', 'owl'] * 10))",
    "nc.measure(model, batches(torch.randn(30, 5), labels))",
    "nc.measure(model, batches(inputs.long(), labels))",
    "nc.measure(model, batches(inputs * float('nan'), labels))",
    "nc.measure(model, batches(inputs, labels[:20]))",
    "nc.measure(nn.Sequential(nn.Flatten(), nn.Softmax(1)), loader)",
    "print(*nc.measure(nn.Sequential(network(), nn.Softmax(1)), loader).notes)",
    "nc.measure(network, loader)",
    "nc.measure(model.state_dict(), loader)",
    "nc.measure(model, loader, layer='fc')",
    "print(*nc.measure(model, loader, layer='0').notes)",
    "nc.measure(model, loader, metric='cdnv')",
    "nc.measure(model, loader, metrics='cdvn')",
    "nc.measure(model, loader, device='gpu')",
    "nc.measure(model, loader, num_classes=2)",
    "nc.measure(model, loader, weight_decay='5e-4')",
    "nc.measure(model, loader, reference=features)",
    "nc.measure(model, loader, distributed=True)",
    "nc.measure_features(labels, features, weight, bias)",
    "nc.measure_features(features, labels, weight.T, bias)",
    "nc.measure_features(features, labels, bias, weight)",
    "nc.measure_features(features.reshape(30, 2, 4), labels, weight, bias)",
    "nc.measure_features(features, labels[:20], weight, bias)",
    "nc.measure_features(features, labels, nn.Linear(8, 3))",
    "nc.measure_featurs(features, labels)",
    "report.nc6",
    "report['nc2.equinorm']",
    "nc.Monitor(model, loader, evry=2)",
    "nc.History.read('no-such-run')",
    "nc.nc1(features)",
    "nc.ClassMoments(3, 8).update(labels, features)",
    "nc.measure_layers(model, loader, layers=['3'])",
)

TIMM_SETUP = """
import timm
pictures = torch.randn(12, 3, 32, 32)
kinds = torch.arange(12) % 3
loader = [(pictures, kinds)]
def make(name, **options): return timm.create_model(name, pretrained=False, **options)
resnet, headless = make('resnet10t', num_classes=3), make('resnet10t', num_classes=0)
"""

TIMM = (
    "nc.measure(timm.create_model, loader)",
    "nc.measure('resnet10t', loader)",
    "nc.measure(resnet, pictures)",
    "nc.measure(resnet, [(pictures.permute(0, 2, 3, 1), kinds)])",
    "nc.measure(resnet, [(pictures[:, :1], kinds)])",
    "nc.measure(resnet, [(pictures.byte(), kinds)])",
    "nc.measure(resnet, [(pictures.half(), kinds)])",
    "nc.measure(resnet, [(pictures, torch.eye(3)[kinds])])",
    "nc.measure(resnet, [(pictures, kinds + 1)])",
    "nc.measure(resnet, [pictures])",
    "nc.measure(resnet, [{'img': pictures, 'gt': kinds}])",
    "nc.measure(resnet, loader, layer='head')",
    "nc.measure(resnet, loader, layer='classifier')",
    "nc.measure(resnet, loader, layer='layer4')",
    "nc.measure(resnet, loader, features='forward_features')",
    "nc.measure(resnet.get_classifier(), loader)",
    "nc.measure(resnet, loader, weight=resnet.get_classifier())",
    "nc.measure(headless, loader, num_classes=2)",
    "nc.measure_features(resnet.forward_features(pictures), kinds)",
    "nc.measure_layers(resnet, loader, layers=['stage4'])",
)

TORCHMETRICS_SETUP = """
from neuralcollapse.integrations.torchmetrics import NeuralCollapse
import torchmetrics
classifier = nn.Linear(8, 3)
def metric(**options): return NeuralCollapse(classifier, **options)
"""

TORCHMETRICS = (
    "NeuralCollapse()",
    "NeuralCollapse(model)",
    "NeuralCollapse(num_classes=3)",
    "NeuralCollapse(3)",
    "NeuralCollapse(weight)",
    "metric(metric='cdnv')",
    "metric(metrics='cdvn')",
    "metric(keep_feature=False)",
    "metric(weighting='classes')",
    "metric(weight_decay=-1)",
    "metric().compute()",
    "metric().update(labels, features)",
    "metric().update(model(inputs), labels)",
    "metric().update(features)",
    "metric().update(features, labels + 1)",
    "metric().update(features, labels.float())",
    "metric().update(features, torch.eye(3)[labels])",
    "metric().update(features[:10], labels)",
    "metric().update(features.reshape(30, 8, 1, 1), labels)",
    "metric().update(features * float('nan'), labels)",
    "metric().merge_state(torchmetrics.MeanMetric())",
)

LIGHTNING_SETUP = """
import lightning, tempfile, warnings, logging
logging.getLogger('lightning').setLevel(logging.ERROR); logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
from neuralcollapse.integrations.lightning import NeuralCollapse
class Module(lightning.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, inputs): return self.net(inputs)
    def training_step(self, batch, index):
        x, y = batch[:2] if isinstance(batch, (list, tuple)) else batch.values()
        return self(x).square().mean() if isinstance(self(x), torch.Tensor) else self(x)[0].square().mean()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.0)
def fit(callback, data=loader, net=None):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        lightning.Trainer(max_epochs=1, accelerator='cpu', callbacks=[callback], logger=False, barebones=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tempfile.gettempdir()).fit(Module(net or network()), data)
"""

LIGHTNING = (
    "NeuralCollapse(model, loader)",
    "NeuralCollapse(model)",
    "NeuralCollapse(dataset)",
    "NeuralCollapse(every=0)",
    "NeuralCollapse(every=0.5)",
    "NeuralCollapse(evry=2)",
    "NeuralCollapse(metric='cdnv')",
    "NeuralCollapse(metrics=['nc9'])",
    "NeuralCollapse(weight_decay=-1)",
    "NeuralCollapse(path=3)",
    "fit(NeuralCollapse, loader)",
    "fit(NeuralCollapse(layer='fc'))",
    "fit(NeuralCollapse(num_classes=2))",
    "fit(NeuralCollapse(), DataLoader(TensorDataset(inputs, labels + 1), batch_size=10))",
    "fit(NeuralCollapse(), DataLoader(TensorDataset(inputs, labels.float() + 0.5), batch_size=10))",
    "fit(NeuralCollapse(), DataLoader(TensorDataset(inputs, torch.eye(3)[labels]), batch_size=10))",
    "fit(NeuralCollapse(), DataLoader([{'a': x, 'b': y} for x, y in dataset], batch_size=10))",
    "NeuralCollapse(loader=iter(loader))",
    "NeuralCollapse(device='gpu')",
    "fit(NeuralCollapse(reference=features))",
)

TRANSFORMERS_SETUP = """
import transformers, tempfile
from neuralcollapse.integrations.transformers import NeuralCollapse
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)
bert = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3))
ids = torch.arange(30 * 4).reshape(30, 4) % 20
texts = [{'input_ids': x, 'labels': y} for x, y in zip(ids, labels)]
arguments = transformers.TrainingArguments(tempfile.mkdtemp(), num_train_epochs=1, report_to=[], use_cpu=True,
    disable_tqdm=True, per_device_train_batch_size=10, save_strategy='no', logging_strategy='no')
def trainer(data=texts, net=bert): return transformers.Trainer(net, arguments, train_dataset=data)
def train(data=texts, net=bert, **options):
    made = trainer(data, net)
    made.add_callback(NeuralCollapse(made, **options))
    made.train()
batched = DataLoader(texts, batch_size=10)
"""

TRANSFORMERS = (
    "NeuralCollapse()",
    "NeuralCollapse(bert)",
    "NeuralCollapse(arguments)",
    "NeuralCollapse(trainer(), evry=2)",
    "NeuralCollapse(trainer(), every=0)",
    "NeuralCollapse(trainer(), metrics='cdvn')",
    "NeuralCollapse(trainer(), iter(batched))",
    "NeuralCollapse(trainer(), loader='train')",
    "trainer().add_callback(NeuralCollapse)",
    "nc.measure(bert, texts)",
    "train(loader=texts)",
    "nc.measure(bert, DataLoader(ids, batch_size=10))",
    "nc.measure(bert, [{'input_ids': ids}])",
    "nc.measure(bert, [{'input_ids': ids, 'labels': labels + 1}])",
    "nc.measure(bert, [{'input_ids': ids, 'labels': labels.float() / 2}])",
    "nc.measure(bert, [{'input_ids': ids, 'target': labels}])",
    "nc.measure(bert, batched, layer='score')",
    "print(*nc.measure(bert, batched, layer='bert.pooler.dense').notes)",
    "nc.measure(bert.bert, batched)",
    "nc.measure(bert, batched, next_token=True)",
    "nc.measure('bert-base-uncased', batched)",
    "train(layer='fc')",
    "train(num_classes=2)",
)

FRAMEWORKS = {
    "Plain PyTorch": ("torch", "", PYTORCH),
    "timm": ("timm", TIMM_SETUP, TIMM),
    "torchmetrics": ("torchmetrics", TORCHMETRICS_SETUP, TORCHMETRICS),
    "Lightning": ("lightning", LIGHTNING_SETUP, LIGHTNING),
    "Transformers": ("transformers", TRANSFORMERS_SETUP, TRANSFORMERS),
}
"""The package, what is defined before, and the mistakes, by framework."""
