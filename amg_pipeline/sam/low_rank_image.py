"""An image that many prompts share, kept as a product of few rows for each of them.

What a block adds to a prompt's image is attention `(S, R)` times a few rows `(R, C)`, and the layer
norm after it scales each position. So a prompt's image is always

    scale * base + sum of (attention * rows) + bias

with a base that no prompt changes. Each product of it with a matrix is a product of the base, made
once an image, and products of the few rows. Nothing of size `(P, S, C)` is ever made.

In every head, a position's attention to the tokens sums to one. So the first token needs no weight:
what it gives goes to all positions alike, in one row for all heads, and the rows of the others are
how they differ from it.

Shapes: `B` images (1, or `P`), `P` prompts, `T` tokens of a prompt, `S` image positions, `C`
channels, `h` heads, `d` channels of a head, `R = h (T - 1) + 1` rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras import ops

from amg_pipeline.sam.products import multiply_heads

if TYPE_CHECKING:
    from amg_pipeline.sam.grid_parts import GridParts
    from amg_pipeline.sam.transformer import Attention, TwoWayAttentionBlock


#: Which axis of what `_sum` adds up is that of the positions.
_POSITIONS = {"base": 1, "scale": 1, "weights": 2}


def image_terms(
    blocks: Sequence[TwoWayAttentionBlock], last: Attention, image: Any, positions: Any
) -> list[dict[str, Any]]:
    """Compute all that `LowRankImage` needs of an image and no prompt changes.

    Args:
        blocks: The blocks that the image will go through.
        last: The attention of tokens to the image after them.
        image: Image tokens `(B, S, C)`.
        positions: Their positional encoding `(1, S, C)`.

    Returns:
        A dictionary of tensors for each block and one for what comes after them.
    """
    base, bias, is_first = image, ops.zeros_like(image[:1, :1]), True
    # Of the rows that blocks add: how token values become rows, `(h, d, C)` and `(C,)`.
    kernels: list[tuple[Any, Any]] = []
    terms = []
    for block in blocks:
        writing = block.cross_attn_image_to_token
        entry = _reading_terms(block.cross_attn_token_to_image, base, bias, positions, is_first)
        queries = ops.matmul(positions + bias, writing.q_proj.kernel) + writing.q_proj.bias
        own = ops.matmul(base, writing.q_proj.kernel)
        entry["queries"] = writing.columns(own + queries if is_first else own)
        entry["query_positions"] = writing.columns(queries)
        offset = writing.out_proj.bias + bias[0, 0]
        kernels = [
            (_centred(k), _centred(o)) for k, o in [*kernels, (writing.row_kernel(), offset)]
        ]
        base = _centred(base)
        entry["offset"] = offset
        entry["squares"] = ops.expand_dims(ops.sum(ops.square(base), axis=-1), 1)
        entry["overlaps"] = [_overlap(writing, base, *kernel) for kernel in kernels]
        gamma, bias = block.norm4.gamma, ops.reshape(block.norm4.beta, (1, 1, -1))
        base = base * gamma
        kernels = [(k * gamma, o * gamma) for k, o in kernels]
        terms.append(entry)
        is_first = False
    entry = _reading_terms(last, base, bias, positions, is_first)
    return [*terms, {**entry, "base": base, "bias": bias}]


def _reading_terms(
    attention: Attention, base: Any, bias: Any, positions: Any, is_first: bool
) -> dict[str, Any]:
    """Project the image to keys and values; what is the same for all keys cancels in softmax."""
    keys = ops.matmul(base, attention.k_proj.kernel)
    key_positions = ops.matmul(positions, attention.k_proj.kernel)
    return {
        "keys": attention.columns(keys + key_positions if is_first else keys),
        "key_positions": attention.columns(key_positions),
        "values": attention.separate_heads(ops.matmul(base, attention.v_proj.kernel)),
        "value_offset": attention.separate_heads(
            ops.matmul(bias, attention.v_proj.kernel) + attention.v_proj.bias
        ),
    }


def _overlap(attention: Attention, base: Any, kernel: Any, offset: Any) -> tuple[Any, Any]:
    """Multiply the base with how values become rows: `(B, h, d, S)` and `(B, 1, S)`."""
    flat = ops.reshape(kernel, (attention.internal_dim, attention.embedding_dim))
    columns = attention.columns(ops.matmul(base, ops.transpose(flat)))
    return columns, ops.expand_dims(ops.matmul(base, offset), 1)


def _centred(x: Any) -> Any:
    return x - ops.mean(x, axis=-1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Addition:
    """What one block added to a prompt's image.

    Attributes:
        weights: Attention of the positions to the tokens, and last a one, all scaled by the norms,
            `(P, R, S)`.
        rows: How the other tokens differ from the first, by head, and last what all positions get,
            `(P, R, C)`.
        values: The tokens' values that the rows are made of, `(P, h, T, d)`.
    """

    weights: Any
    rows: Any
    values: Any


@dataclass(frozen=True, slots=True)
class LowRankImage:
    """An image that many prompts share, with what each of them added to it.

    Attributes:
        terms: What `image_terms` gave, without the blocks that are done.
        scale: Product of the norms' scales, `(P, 1, S)`; None before the first.
        additions: One for each block that is done.
    """

    terms: list[dict[str, Any]]
    scale: Any = None
    additions: tuple[Addition, ...] = ()

    def attended_by(self, attention: Attention, queries: Any) -> Any:
        """See `ImageSide`."""
        terms = self.terms[0]
        query = attention.scaled_queries(queries)
        logits = self._dot(query, terms["keys"], terms["key_positions"], attention.k_proj.kernel)
        weights = ops.softmax(logits, axis=-1)
        shared = weights if self.scale is None else weights * ops.expand_dims(self.scale, 1)
        found = multiply_heads(shared, terms["values"]) + terms["value_offset"]
        if self.additions:
            mixed = _weigh(_merge_rows(weights), self.added["weights"], self.added["rows"])
            found = found + attention.project_rows(mixed, attention.v_proj.kernel)
        return attention.combine(found)

    def attend_to(self, block: TwoWayAttentionBlock, keys: Any, values: Any) -> LowRankImage:
        """See `ImageSide`."""
        terms, attention = self.terms[0], block.cross_attn_image_to_token
        key = attention.scaled_keys(keys)
        # Less the first token's, whose logit is then zero.
        key = key[:, :, 1:] - key[:, :, :1]
        logits = self._dot(key, terms["queries"], terms["query_positions"], attention.q_proj.kernel)
        highest = ops.maximum(ops.max(logits, axis=2, keepdims=True), 0.0)
        exponents = ops.exp(logits - highest)
        total = ops.sum(exponents, axis=2, keepdims=True) + ops.exp(-highest)
        weights = _merge_rows(exponents / total)
        weights = ops.concatenate([weights, ops.ones_like(weights[:, :1])], axis=1)
        value = attention.separate_heads(attention.v_proj(values))
        rows = _rows(value, attention.row_kernel(), terms["offset"])
        parts = [
            Addition(part.weights, _centred(part.rows), part.values)
            for part in (*self.additions, Addition(weights, rows, value))
        ]
        variance = self._squared_norms(parts) / attention.embedding_dim
        scale = ops.rsqrt(ops.maximum(variance, 0.0) + block.norm4.epsilon)
        return LowRankImage(
            self.terms[1:],
            scale if self.scale is None else self.scale * scale,
            tuple(
                Addition(part.weights * scale, part.rows * block.norm4.gamma, part.values)
                for part in parts
            ),
        )

    @property
    def shared(self) -> Any:
        """See `ImageSide`."""
        return self.terms

    @property
    def added(self) -> Any:
        """See `ImageSide`."""
        return {
            "scale": self.scale,
            "weights": ops.concatenate([part.weights for part in self.additions], axis=1),
            "rows": ops.concatenate([part.rows for part in self.additions], axis=1),
        }

    @classmethod
    def restored(cls, shared: Any, added: Any = None) -> LowRankImage:
        """See `ImageSide`."""
        if added is None:
            return cls(shared)
        part = Addition(added["weights"], added["rows"], None)
        return cls(shared[-1:], added["scale"], (part,))

    def prepared(self, kernel: Any) -> list[dict[str, Any]]:
        """Give the terms with the base's product with what `map_projected` will multiply with."""
        last = self.terms[-1]
        products = {name: ops.matmul(last[name], kernel) for name in ("base", "bias")}
        return [*self.terms[:-1], {**last, "products": products}]

    def map_projected(
        self,
        kernel: Any,
        function: Callable[[Any], Any],
        parts: GridParts | None = None,
        blank: Any = None,
    ) -> Any:
        """See `ImageSide`; of `prepared` terms it must be the kernel that they were made for."""
        if "products" in self.terms[0]:
            products = self.terms[0]["products"]
        else:
            products = self.prepared(kernel)[0]["products"]
        rows = ops.matmul(self.added["rows"], kernel)
        pieces = self._pieces(products["base"])

        def apply(some: dict[str, Any]) -> Any:
            return function(_sum(some, rows, products["bias"]))

        if parts is None:
            return apply(pieces)
        cut = {name: parts.cut(piece, axis=_POSITIONS[name]) for name, piece in pieces.items()}
        return parts.map(apply, cut, blank)

    def features(self) -> Any:
        """See `ImageSide`."""
        terms = self.terms[0]
        return _sum(self._pieces(terms["base"]), self.added["rows"], terms["bias"])

    def _pieces(self, base: Any) -> dict[str, Any]:
        scale = ops.transpose(self.scale, (0, 2, 1))
        return {"base": base, "scale": scale, "weights": self.added["weights"]}

    def _dot(self, tokens: Any, columns: Any, position_columns: Any, kernel: Any) -> Any:
        """Multiply tokens `(P, h, T, d)` with the projected image: `(P, h, T, S)`."""
        product = multiply_heads(tokens, columns)
        if self.scale is None:
            return product
        product = product * ops.expand_dims(self.scale, 1)
        product = product + multiply_heads(tokens, position_columns)
        mixed = ops.matmul(_fold(tokens, kernel), ops.transpose(self.added["rows"], (0, 2, 1)))
        found = ops.matmul(mixed, self.added["weights"])
        return product + ops.reshape(found, ops.shape(product))

    def _squared_norms(self, parts: Sequence[Addition]) -> Any:
        """Give the squared norms of the positions of base and parts together, `(P, 1, S)`.

        Expanded, so that no position is ever written out; all of them are centred already.
        """
        terms = self.terms[0]
        scale = 1.0 if self.scale is None else self.scale
        norms = terms["squares"] * ops.square(scale)
        for place, (part, (columns, offset)) in enumerate(
            zip(parts, terms["overlaps"], strict=True)
        ):
            overlap = _rows(part.values, columns, offset)
            # Products of two different things count twice, those with parts before are in here.
            rows = [2.0 * before.rows for before in parts[:place]] + [part.rows]
            gram = ops.matmul(part.rows, ops.transpose(ops.concatenate(rows, axis=1), (0, 2, 1)))
            weights = ops.concatenate([some.weights for some in parts[: place + 1]], axis=1)
            found = 2.0 * overlap * scale + ops.matmul(gram, weights)
            norms = norms + ops.sum(part.weights * found, axis=1, keepdims=True)
        return norms


def _rows(values: Any, kernel: Any, offset: Any) -> Any:
    """Turn token values `(P, h, T, d)` into rows by `(h, d, N)` and what all positions get, `(N,)`.

    Returns:
        `(P, R, N)`: how the other tokens differ from the first, by head, and what all get.
    """
    first = values[:, :, :1]
    others = _merge_rows(multiply_heads(values[:, :, 1:] - first, kernel))
    common = ops.sum(multiply_heads(first, kernel), axis=1) + offset
    return ops.concatenate([others, common], axis=1)


def _sum(pieces: dict[str, Any], rows: Any, bias: Any) -> Any:
    """Add up base, rows and bias at every position, `(P, S, N)`."""
    added = ops.matmul(ops.transpose(pieces["weights"], (0, 2, 1)), rows)
    return pieces["base"] * pieces["scale"] + added + bias


def _merge_rows(x: Any) -> Any:
    """Put the tokens of all heads one after another, `(P, h, T, N)` to `(P, h T, N)`."""
    prompts, heads, tokens, width = ops.shape(x)
    return ops.reshape(x, (prompts, heads * tokens, width))


def _weigh(weights: Any, others: Any, rows: Any) -> Any:
    """Add up rows `(P, R, C)` as weights `(P, M, S)` meet others `(P, R, S)`: `(P, M, C)`.

    The larger of the two comes first, because XLA rearranges the second. Transposed products would
    do as well, but XLA turns them back.
    """
    met = ops.einsum("prs,pms->prm", others, weights)
    return ops.einsum("prm,prc->pmc", met, rows)


def _fold(tokens: Any, kernel: Any) -> Any:
    """Take tokens `(P, h, T, d)` back through a projection `(C, h d)`: `(P, h T, C)`."""
    channels, (_, heads, _, width) = kernel.shape[0], tokens.shape
    by_head = ops.transpose(ops.reshape(kernel, (channels, heads, width)), (1, 2, 0))
    return _merge_rows(multiply_heads(tokens, by_head))
