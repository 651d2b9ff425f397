"""From images to the loss that weights learn from. What DistributedDataParallel wraps; attacks never see it (X39)."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from s3ta.attacks import OutputsFn, final_logits
from s3ta.models import S3TA, ExecutedModel
from s3ta.train.config import LossConfig, TradesLoss
from s3ta.types import Images, Labels


class Learner(nn.Module):
    """The mean loss over one BN group, with the model in training mode."""

    def __init__(self, model: nn.Module, loss: LossConfig, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self._beta = loss.beta if isinstance(loss, TradesLoss) else None
        self._label_smoothing = label_smoothing

    def forward(
        self, clean: Images | None, attacked: Images, labels: Labels, num_glimpses: int | None
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """The loss, and how many of the attacked images are answered right.

        Without `clean` the attacked images alone are learned from (T12); with it, TRADES takes the cross-entropy on the
        clean ones and the divergence between both answers, through which gradients flow on both sides."""
        outputs_fn = make_outputs_fn(self.model, num_glimpses)
        if clean is None or self._beta is None:
            logits = final_logits(outputs_fn(attacked))
            loss = cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        else:
            clean_logits, logits = final_logits(outputs_fn(clean)), final_logits(outputs_fn(attacked))
            apart = kl_div(logits.log_softmax(1), clean_logits.log_softmax(1), reduction="batchmean", log_target=True)
            loss = cross_entropy(clean_logits, labels, label_smoothing=self._label_smoothing) + self._beta * apart
        return loss, (logits.detach().argmax(dim=1) == labels).sum()


def make_outputs_fn(model: nn.Module, glimpses: int | None, *, trace: bool = False) -> OutputsFn:
    """The model, or its trace: after another number of glimpses than its own, or where an attack wants to see it."""
    bare = model.model if isinstance(model, ExecutedModel) else model
    return partial(model.unroll, num_glimpses=glimpses) if (glimpses or trace) and isinstance(bare, S3TA) else model  # pyright: ignore
