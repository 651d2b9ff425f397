"""S3TA: encode the image once, look at the map T times from the top down, answer with the last read-out.

model = s3ta.create_model("s3ta_4_resnetv2_mini", num_classes=10, image_size=60, in_channels=1)
logits = model(images)                           # (B, Y)
trace = model.unroll(images, num_glimpses=8)     # logits (8, B, Y), attention (8, B, N, h, w)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.attention import attend, spatial_basis
from s3ta.models.config import S3TAConfig
from s3ta.models.vision import NativeClassifier, linear, truncated_normal_
from s3ta.types import Images, Logits, Trace


class Controller(nn.Module):
    """The top-down half (paper A.1-A.2): state -> query -> answer -> next state -> read-out.

    An `LSTMCell` on the answers and the queries that fetched them (M9), the query network on the hidden state and the
    previous logits (M10), and one read-out for every glimpse (M13). Gradients flow through the fed-back logits unless
    the config detaches them (M11a)."""

    def __init__(self, config: S3TAConfig, num_features: int) -> None:
        super().__init__()
        num_basis = (2 * config.num_frequencies) ** 2
        self.num_heads, self.first_logits = config.num_heads, config.first_logits
        self.detach_feedback = config.detach_feedback
        query_size = config.key_channels + num_basis
        answer_size = num_features - config.key_channels + num_basis
        self.num_classes = config.num_classes
        self.lstm = nn.LSTMCell(config.num_heads * (answer_size + query_size), config.lstm_size)
        self.query = _mlp(config.lstm_size + config.num_classes, config.query_hidden, config.num_heads * query_size)
        self.readout = _mlp(config.lstm_size, config.readout_hidden, config.num_classes)
        self.initial_hidden = nn.Parameter(torch.empty(1, config.lstm_size))
        self.initial_cell = nn.Parameter(torch.empty(1, config.lstm_size))
        self._initialize(config.initial_state_std)

    def _initialize(self, initial_state_std: float) -> None:
        """Sonnet's defaults (M12): truncated normal with std 1/sqrt(fan in), zero bias, forget gate open (+1)."""
        fan_in = self.lstm.input_size + self.lstm.hidden_size
        truncated_normal_(self.lstm.weight_ih, fan_in=fan_in)
        truncated_normal_(self.lstm.weight_hh, fan_in=fan_in)
        nn.init.zeros_(self.lstm.bias_ih)
        nn.init.zeros_(self.lstm.bias_hh)
        with torch.no_grad():  # gate order i, f, g, o
            self.lstm.bias_ih[self.lstm.hidden_size : 2 * self.lstm.hidden_size] = 1.0
        nn.init.normal_(self.initial_hidden, std=initial_state_std)
        nn.init.normal_(self.initial_cell, std=initial_state_std)

    def forward(
        self,
        keys: Float[Tensor, "B K h w"],
        values: Float[Tensor, "B V h w"],
        basis: Float[Tensor, "S h w"],
        num_glimpses: int,
    ) -> Trace:
        batch = keys.shape[0]
        hidden, cell = self.initial_hidden.expand(batch, -1), self.initial_cell.expand(batch, -1)
        logits = self.readout(hidden) if self.first_logits == "readout" else hidden.new_zeros(batch, self.num_classes)
        all_logits, all_attention = [], []
        for _ in range(num_glimpses):
            feedback = logits.detach() if self.detach_feedback else logits
            query = self.query(torch.cat([hidden, feedback], dim=-1)).unflatten(-1, (self.num_heads, -1))
            answers, attention = attend(query, keys, values, basis)
            hidden, cell = self.lstm(torch.cat([answers.flatten(1), query.flatten(1)], dim=-1), (hidden, cell))
            logits = self.readout(hidden)
            all_logits.append(logits)
            all_attention.append(attention)
        return Trace(torch.stack(all_logits), torch.stack(all_attention))


class S3TA(NativeClassifier):
    """The classifier: images in [0, 1] -> logits. Computation and parameter counts: M1-M16, protocol tables 1.4, 1.5."""

    config: S3TAConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    basis: Tensor

    def __init__(self, config: S3TAConfig) -> None:
        super().__init__(config)
        num_features = self.vision.num_features
        if config.key_channels >= num_features:
            raise UserError(
                f"key_channels is {config.key_channels}, but the vision net has only {num_features} channels: "
                "leave at least one for the values."
            )
        self.controller = Controller(config, num_features)
        size = self.vision.backbone.map_size(config.vision.image_size)
        self.register_buffer("basis", self._basis(size, size).float(), persistent=False)

    def unroll(self, images: Images, num_glimpses: int | None = None) -> Trace:
        """Look `num_glimpses` times (default: the config's; any number >= 1 works, trained with or not).

        Returns the Trace of logits `(T, B, Y)` after every glimpse and attention `(T, B, N, h, w)` at every glimpse.
        Raises UserError: num_glimpses below 1."""
        num_glimpses = self.config.num_glimpses if num_glimpses is None else num_glimpses
        if num_glimpses < 1:
            raise UserError(f"num_glimpses is {num_glimpses}: a model must look at least once.")
        features = self.vision(images)
        keys, values = features[:, : self.config.key_channels], features[:, self.config.key_channels :]
        return self.controller(keys, values, self._basis_for(features), num_glimpses)

    def forward(self, images: Images) -> Logits:
        """The read-out after the last glimpse."""
        return self.unroll(images).logits[-1]

    def _basis_for(self, features: Float[Tensor, "B F h w"]) -> Float[Tensor, "S h w"]:
        """The constant basis of this map: the stored one (float32), or a fresh one for another size or for float64."""
        size = features.shape[-2:]
        if self.basis.shape[-2:] != size or features.dtype == torch.float64:
            return self._basis(size[0], size[1]).to(features)
        return self.basis.to(features)

    def _basis(self, height: int, width: int) -> Float[Tensor, "S h w"]:
        return spatial_basis(height, width, self.config.num_frequencies, self.config.basis_origin)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer with ReLU (paper A.2.3, A.2.4)."""
    return nn.Sequential(linear(inputs, hidden), nn.ReLU(), linear(hidden, outputs))
