"""The text classifiers that we train ourselves: a bidirectional LSTM with additive attention, and a multilayer
perceptron for each token that a given map weights.

The first, in two sizes, is the sentiment model that ships and the model of the attention studies (Jain &
Wallace 2019, "Attention is not Explanation"); the second is the weak learner of Wiegreffe & Pinter (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PADDING = 0


class AttentionClassifier(nn.Module):
    """Embedding, BiLSTM, attention `softmax(v·tanh(W h + b))` over the tokens, linear (Bahdanau et al. 2015).

    Token ids (batch, tokens) in, scores (batch, classes) out. Padding (id 0) is as if it were not there, wherever it
    stands, so a batch gives what its texts give one by one, and a token that is replaced by padding is deleted.
    `states`, `attention` and `decide` are the three steps of `forward`, for whoever wants to look at a map or decide
    with another one.

    Args:
        words (int): Size of the vocabulary.
        embedding (int, default 300): Dimensions of the embeddings.
        hidden (int, default 128): Units of the LSTM in each direction.
        attention (int, default None): Width of the scoring layer; None: `hidden`.
        classes (int, default 2): Classes.
        dropout (float, default 0.0): Share that is dropped in training.

    >>> model = AttentionClassifier(words=10, embedding=4, hidden=3).eval()
    >>> alone, padded = torch.tensor([[2, 7]]), torch.tensor([[2, 7, 0], [5, 5, 5]])
    >>> model(padded).shape, bool(torch.allclose(model(padded)[:1], model(alone)))
    (torch.Size([2, 2]), True)
    """

    def __init__(
        self,
        words: int,
        embedding: int = 300,
        hidden: int = 128,
        attention: int | None = None,
        classes: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = hidden if attention is None else attention
        self.embedding = nn.Embedding(words, embedding, padding_idx=PADDING)
        self.rightward = nn.LSTM(embedding, hidden, batch_first=True)
        self.leftward = nn.LSTM(embedding, hidden, batch_first=True)
        self.key = nn.Linear(2 * hidden, width)
        self.query = nn.Linear(width, 1, bias=False)
        self.output = nn.Linear(2 * hidden, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """The scores `(batch, classes)` of token ids `(batch, tokens)`."""
        states = self.states(ids)
        return self.decide(states, self.attention(states, ids))

    def states(self, ids: Tensor) -> Tensor:
        """What the BiLSTM holds at each token, `(batch, tokens, 2 * hidden)`; zero at padding."""
        padding = ids == PADDING
        place = torch.arange(ids.shape[1], device=ids.device)
        last = 2 * ids.shape[1] * padding  # sorts padding behind every token
        words: Tensor = self.dropout(self.embedding(ids))
        states: Tensor = torch.cat(
            [
                _run_lstm(self.rightward, words, (place + last).argsort(1)),
                _run_lstm(self.leftward, words, (last - place).argsort(1)),
            ],
            dim=-1,
        )
        kept: Tensor = self.dropout(states.masked_fill(padding[..., None], 0.0))
        return kept

    def attention(self, states: Tensor, ids: Tensor) -> Tensor:
        """The attention map `(batch, tokens)`: each row adds up to one over its tokens."""
        scores: Tensor = self.query(torch.tanh(self.key(states))).squeeze(-1)
        # The lowest number, not -inf: a row of padding only must not become NaN.
        return scores.masked_fill(ids == PADDING, torch.finfo(scores.dtype).min).softmax(-1)

    def decide(self, states: Tensor, attention: Tensor) -> Tensor:
        """The scores `(batch, classes)` of states that are weighted by an attention map `(batch, tokens)`; of
        several maps `(batch, maps, tokens)`, `(batch, maps, classes)`."""
        return _decide(self.output, states, attention)


class TokenMLP(nn.Module):
    """A perceptron that sees each token by itself (Wiegreffe & Pinter 2019).

    `tanh(W e + b)` of its embedding, weighted by a given map, summed and classified linearly. Token ids and weights
    (batch, tokens) in, scores (batch, classes) out; what the model learns about which tokens matter it can only have
    from the map. `states` and `decide` are as in AttentionClassifier.

    Args:
        words (int): Size of the vocabulary.
        embedding (int, default 300): Dimensions of the embeddings.
        hidden (int, default 128): Hidden units for each token.
        classes (int, default 2): Classes.

    >>> model = TokenMLP(words=10, embedding=4, hidden=3)
    >>> model(torch.tensor([[2, 7, 0]]), torch.tensor([[0.5, 0.5, 0.0]])).shape
    torch.Size([1, 2])
    """

    def __init__(self, words: int, embedding: int = 300, hidden: int = 128, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PADDING)
        self.hidden = nn.Linear(embedding, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """The scores `(batch, classes)` of token ids and their weights, both `(batch, tokens)`."""
        return self.decide(self.states(ids), weights)

    def states(self, ids: Tensor) -> Tensor:
        """What is seen of each token, `(batch, tokens, hidden)`; zero at padding."""
        states: Tensor = torch.tanh(self.hidden(self.embedding(ids)))
        return states.masked_fill((ids == PADDING)[..., None], 0.0)

    def decide(self, states: Tensor, weights: Tensor) -> Tensor:
        """The scores `(batch, classes)` of states that are weighted by a map, or by several."""
        return _decide(self.output, states, weights)


def _decide(output: nn.Linear, states: Tensor, weights: Tensor) -> Tensor:
    one = weights.dim() == 2
    pooled = torch.matmul(weights[:, None] if one else weights, states)
    scores: Tensor = output(pooled[:, 0] if one else pooled)
    return scores


def _run_lstm(lstm: nn.LSTM, words: Tensor, order: Tensor) -> Tensor:
    """Run the LSTM over the words in this order, and put its states back where their words stand.

    A packed sequence would be exact too, but hides the recurrence from whoever watches torch functions.
    """
    states: Tensor = lstm(words.take_along_dim(order[..., None], 1))[0]
    return states.take_along_dim(order.argsort(1)[..., None], 1)
