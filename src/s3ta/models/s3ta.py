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
from s3ta.models.vision import NativeClassifier, mlp, truncated_normal_
from s3ta.types import Images, Logits, Trace


class Controller(nn.Module):
    """The top-down half (paper A.1-A.2): state -> query -> answer -> next state -> read-out.

    An `LSTMCell` on the answers and the queries that fetched them (M9), the query network on the hidden state and the
    previous logits (M10), and one read-out for every glimpse (M13). Gradients flow through the fed-back logits unless
    the config detaches them (M11a).

    Ablations leave parts out: the query network, the logits that it sees, the LSTM for a `GRUCell`."""

    def __init__(self, config: S3TAConfig, num_features: int) -> None:
        super().__init__()
        num_basis = (2 * config.num_frequencies) ** 2
        self.num_heads, self.first_logits = config.num_heads, config.first_logits
        self.detach_feedback, self.feeds_back_logits = config.detach_feedback, config.feeds_back_logits
        self.has_queries, self.has_cell = config.queries == "learned", config.cell == "lstm"
        self.query_size = config.key_channels + num_basis
        self.query_scale = self.query_size**-0.5 if config.scaled_attention else None
        answer_size = num_features - config.key_channels + num_basis
        self.num_classes = config.num_classes
        read = config.num_heads * (answer_size + (self.query_size if self.has_queries else 0))
        if self.has_cell:
            self.lstm = nn.LSTMCell(read, config.lstm_size)
        else:
            self.gru = nn.GRUCell(read, config.lstm_size)
        if self.has_queries:
            seen = config.lstm_size + (config.num_classes if config.feeds_back_logits else 0)
            self.query = mlp(seen, config.query_hidden, config.num_heads * self.query_size)
        self.readout = mlp(config.lstm_size, config.readout_hidden, config.num_classes)
        self.initial_hidden = nn.Parameter(torch.empty(1, config.lstm_size))
        if self.has_cell:
            self.initial_cell = nn.Parameter(torch.empty(1, config.lstm_size))
        self._initialize(config.initial_state_std)

    def _initialize(self, initial_state_std: float) -> None:
        """Sonnet's defaults (M12): truncated normal with std 1/sqrt(fan in), zero bias, forget gate open (+1)."""
        recurrent = self.lstm if self.has_cell else self.gru
        fan_in = recurrent.input_size + recurrent.hidden_size
        truncated_normal_(recurrent.weight_ih, fan_in=fan_in)
        truncated_normal_(recurrent.weight_hh, fan_in=fan_in)
        nn.init.zeros_(recurrent.bias_ih)
        nn.init.zeros_(recurrent.bias_hh)
        if self.has_cell:
            with torch.no_grad():  # gate order i, f, g, o
                self.lstm.bias_ih[self.lstm.hidden_size : 2 * self.lstm.hidden_size] = 1.0
        nn.init.normal_(self.initial_hidden, std=initial_state_std)
        if self.has_cell:
            nn.init.normal_(self.initial_cell, std=initial_state_std)

    def forward(
        self,
        keys: Float[Tensor, "B K h w"],
        values: Float[Tensor, "B V h w"],
        basis: Float[Tensor, "S h w"],
        num_glimpses: int,
    ) -> Trace:
        batch = keys.shape[0]
        hidden = self.initial_hidden.expand(batch, -1)
        cell = self.initial_cell.expand(batch, -1) if self.has_cell else None
        logits = self.readout(hidden) if self.first_logits == "readout" else hidden.new_zeros(batch, self.num_classes)
        all_logits, all_attention = [], []
        for _ in range(num_glimpses):
            query = self._next_query(hidden, logits)
            answers, attention = attend(self._scaled(query), keys, values, basis)
            read = torch.cat([answers.flatten(1), query.flatten(1)], dim=-1) if self.has_queries else answers.flatten(1)
            if cell is None:
                hidden = self.gru(read, hidden)
            else:
                hidden, cell = self.lstm(read, (hidden, cell))
            logits = self.readout(hidden)
            all_logits.append(logits)
            all_attention.append(attention)
        return Trace(torch.stack(all_logits), torch.stack(all_attention))

    def _next_query(self, hidden: Float[Tensor, "B H"], logits: Logits) -> Float[Tensor, "B N Q"]:
        """Zeros, whose attention is uniform, where there is no query network."""
        if not self.has_queries:
            return hidden.new_zeros(hidden.shape[0], self.num_heads, self.query_size)
        if not self.feeds_back_logits:
            return self.query(hidden).unflatten(-1, (self.num_heads, -1))
        feedback = logits.detach() if self.detach_feedback else logits
        return self.query(torch.cat([hidden, feedback], dim=-1)).unflatten(-1, (self.num_heads, -1))

    def _scaled(self, query: Float[Tensor, "B N Q"]) -> Float[Tensor, "B N Q"]:
        return query if self.query_scale is None else query * self.query_scale


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
