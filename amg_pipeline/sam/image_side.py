"""The image's side of the two-way transformer: what tokens attend to, and what attends to them.

`DenseImage` is the plain form: every prompt has its own copy of the image's tokens, rewritten after
each block. `LowRankImage` (`low_rank_image.py`) is the same thing for many prompts on one image.

Shapes: `P` prompts, `T` tokens of a prompt, `S` image positions, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keras import ops

if TYPE_CHECKING:
    from amg_pipeline.sam.grid_parts import GridParts
    from amg_pipeline.sam.transformer import Attention, TwoWayAttentionBlock


class ImageSide(Protocol):
    """The image as prompts see it, between two blocks."""

    def attended_by(self, attention: Attention, queries: Any) -> Any:
        """Let tokens `(P, T, C)` attend to the image; gives `(P, T, C)`."""
        ...

    def attend_to(self, block: TwoWayAttentionBlock, keys: Any, values: Any) -> ImageSide:
        """Let the image attend to tokens `(P, T, C)`, add what it finds and normalise."""
        ...

    @property
    def shared(self) -> Any:
        """What all prompts share: tensors in some structure, for `restored`."""
        ...

    @property
    def added(self) -> Any:
        """What prompts made of it: tensors with the prompts first, for `restored`."""
        ...

    @classmethod
    def restored(cls, shared: Any, added: Any = None) -> ImageSide:
        """Give an image its form again: untouched, or after all blocks for all or some prompts."""
        ...

    def map_projected(
        self,
        kernel: Any,
        function: Callable[[Any], Any],
        parts: GridParts | None = None,
        blank: Any = None,
    ) -> Any:
        """Multiply every position with a matrix and do something with that.

        Args:
            kernel: Matrix `(C, N)`.
            function: Is given the products `(P, S', N)` of a part's positions.
            parts: How the positions are cut; None for all of them at once.
            blank: What a part that is not wanted gives.

        Returns:
            What the function gave of all positions, or of one part after another, stacked.
        """
        ...

    def features(self) -> Any:
        """Give the image's tokens, `(P, S, C)`."""
        ...


@dataclass(frozen=True, slots=True)
class DenseImage:
    """An image's tokens as they are, `(P or 1, S, C)`, and their positions `(1, S, C)`."""

    tokens: Any
    positions: Any

    def attended_by(self, attention: Attention, queries: Any) -> Any:
        """See `ImageSide`."""
        return attention(queries, self.tokens + self.positions, self.tokens)

    def attend_to(self, block: TwoWayAttentionBlock, keys: Any, values: Any) -> DenseImage:
        """See `ImageSide`."""
        attention = block.cross_attn_image_to_token
        found = attention(self.tokens + self.positions, keys, values)
        return DenseImage(block.norm4(self.tokens + found), self.positions)

    @property
    def shared(self) -> Any:
        """See `ImageSide`."""
        return {"tokens": self.tokens, "positions": self.positions}

    @property
    def added(self) -> Any:
        """See `ImageSide`."""
        return {"tokens": self.tokens}

    @classmethod
    def restored(cls, shared: Any, added: Any = None) -> DenseImage:
        """See `ImageSide`."""
        return cls(**{**shared, **(added or {})})

    def map_projected(
        self,
        kernel: Any,
        function: Callable[[Any], Any],
        parts: GridParts | None = None,
        blank: Any = None,
    ) -> Any:
        """See `ImageSide`."""
        kernel = ops.cast(kernel, self.tokens.dtype)
        if parts is None:
            return function(ops.matmul(self.tokens, kernel))
        tokens = parts.cut(self.tokens, axis=1)
        return parts.map(lambda some: function(ops.matmul(some, kernel)), tokens, blank)

    def features(self) -> Any:
        """See `ImageSide`."""
        return self.tokens
