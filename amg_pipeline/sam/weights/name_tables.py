r"""The tables with which `names` translates: what other files call SAM's tensors.

In a pattern, `{i}` stands for an index written as digits, `{n}` for the suffix with which Keras
numbers repeated classes (nothing for the first, then `_1`, `_2`), and `{p}` for weight or bias
(in HDF5: 0 or 1). The official name refers to them as `\1`, `\2`, in order.
"""

from __future__ import annotations

_FOURIER = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

#: (pattern, official name).
Table = tuple[tuple[str, str], ...]

#: `state_dict` of `transformers.SamModel`; layouts are PyTorch's.
HUGGING_FACE: Table = (
    (
        r"(?:prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding",
        _FOURIER,
    ),
    (r"vision_encoder\.pos_embed", r"image_encoder.pos_embed"),
    (r"vision_encoder\.patch_embed\.projection\.{p}", r"image_encoder.patch_embed.proj.\1"),
    (r"vision_encoder\.layers\.{i}\.layer_norm([12])\.{p}", r"image_encoder.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.layers\.{i}\.((?:attn|mlp)\..+)", r"image_encoder.blocks.\1.\2"),
    (r"vision_encoder\.neck\.conv1\.{p}", r"image_encoder.neck.0.\1"),
    (r"vision_encoder\.neck\.layer_norm1\.{p}", r"image_encoder.neck.1.\1"),
    (r"vision_encoder\.neck\.conv2\.{p}", r"image_encoder.neck.2.\1"),
    (r"vision_encoder\.neck\.layer_norm2\.{p}", r"image_encoder.neck.3.\1"),
    (r"prompt_encoder\.point_embed\.{i}\.weight", r"prompt_encoder.point_embeddings.\1.weight"),
    (r"(prompt_encoder\.(?:not_a_point|no_mask)_embed\.weight)", r"\1"),
    (r"prompt_encoder\.mask_embed\.conv1\.{p}", r"prompt_encoder.mask_downscaling.0.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.{p}", r"prompt_encoder.mask_downscaling.1.\1"),
    (r"prompt_encoder\.mask_embed\.conv2\.{p}", r"prompt_encoder.mask_downscaling.3.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.{p}", r"prompt_encoder.mask_downscaling.4.\1"),
    (r"prompt_encoder\.mask_embed\.conv3\.{p}", r"prompt_encoder.mask_downscaling.6.\1"),
    (r"(mask_decoder\.(?:iou_token|mask_tokens)\.weight)", r"\1"),
    (
        r"mask_decoder\.transformer\.layers\.{i}\.layer_norm([1-4])\.{p}",
        r"mask_decoder.transformer.layers.\1.norm\2.\3",
    ),
    (
        r"mask_decoder\.transformer\.layer_norm_final_attn\.{p}",
        r"mask_decoder.transformer.norm_final_attn.\1",
    ),
    (r"(mask_decoder\.transformer\.(?:layers\.\d+|final_attn_token_to_image)\..+)", r"\1"),
    (r"mask_decoder\.upscale_conv1\.{p}", r"mask_decoder.output_upscaling.0.\1"),
    (r"mask_decoder\.upscale_layer_norm\.{p}", r"mask_decoder.output_upscaling.1.\1"),
    (r"mask_decoder\.upscale_conv2\.{p}", r"mask_decoder.output_upscaling.3.\1"),
    # In a head, `proj_in` is the first layer, `layers.0` the second, and `proj_out` the last.
    (
        r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_in\.{p}",
        r"\1.layers.first.\2",
    ),
    (
        r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.{i}\.{p}",
        r"\1.layers.inner\2.\3",
    ),
    (
        r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_out\.{p}",
        r"\1.layers.last.\2",
    ),
)

_HUB_ENCODER = r"(?:image_encoder/)?layers/"
_HUB_BLOCK = _HUB_ENCODER + r"windowed_transformer_encoder{n}/"
_HUB_PROMPTS = r"(?:layers/sam_prompt_encoder|prompt_encoder)/"
_HUB_DECODER = r"(?:layers/sam_mask_decoder|mask_decoder)/"
_HUB_TWO_WAY = _HUB_DECODER + r"transformer/layers/two_way_multi_head_attention{n}/"

_HUB_ATTENTIONS = {
    "self_attention": "self_attn",
    "cross_attention_token_to_image": "cross_attn_token_to_image",
    "cross_attention_image_to_token": "cross_attn_image_to_token",
}
_HUB_PROJECTIONS = {
    "query_proj": "q_proj",
    "key_proj": "k_proj",
    "value_proj": "v_proj",
    "out_proj": "out_proj",
}

#: Layout of `model.weights.h5` in KerasHub 0.18 to 0.32.
KERAS_HUB: Table = (
    (_HUB_ENCODER + r"add_positional_embedding/vars/0", r"image_encoder.pos_embed"),
    (
        _HUB_ENCODER + r"vi_t_det_patching_and_embedding/projection/vars/{p}",
        r"image_encoder.patch_embed.proj.\1",
    ),
    (_HUB_BLOCK + r"layer_norm([12])/vars/{p}", r"image_encoder.blocks.\1.norm\2.\3"),
    (_HUB_BLOCK + r"attention/qkv/vars/{p}", r"image_encoder.blocks.\1.attn.qkv.\2"),
    (_HUB_BLOCK + r"attention/projection/vars/{p}", r"image_encoder.blocks.\1.attn.proj.\2"),
    (
        _HUB_BLOCK + r"attention/add_decomposed_relative_pe/vars/0",
        r"image_encoder.blocks.\1.attn.rel_pos_h",
    ),
    (
        _HUB_BLOCK + r"attention/add_decomposed_relative_pe/vars/1",
        r"image_encoder.blocks.\1.attn.rel_pos_w",
    ),
    (
        _HUB_BLOCK + r"mlp_block/dense_net/layers/dense/vars/{p}",
        r"image_encoder.blocks.\1.mlp.lin1.\2",
    ),
    (
        _HUB_BLOCK + r"mlp_block/dense_net/layers/dense_1/vars/{p}",
        r"image_encoder.blocks.\1.mlp.lin2.\2",
    ),
    (_HUB_ENCODER + r"sequential/layers/conv2d/vars/{p}", r"image_encoder.neck.0.\1"),
    (_HUB_ENCODER + r"sequential/layers/layer_normalization/vars/{p}", r"image_encoder.neck.1.\1"),
    (_HUB_ENCODER + r"sequential/layers/conv2d_1/vars/{p}", r"image_encoder.neck.2.\1"),
    (
        _HUB_ENCODER + r"sequential/layers/layer_normalization_1/vars/{p}",
        r"image_encoder.neck.3.\1",
    ),
    (_HUB_PROMPTS + r"positional_embedding_layer/vars/0", _FOURIER),
    (_HUB_PROMPTS + r"background_point_embed/vars/0", r"prompt_encoder.point_embeddings.0.weight"),
    (_HUB_PROMPTS + r"foreground_point_embed/vars/0", r"prompt_encoder.point_embeddings.1.weight"),
    (_HUB_PROMPTS + r"top_left_corner_embed/vars/0", r"prompt_encoder.point_embeddings.2.weight"),
    (
        _HUB_PROMPTS + r"bottom_right_corner_embed/vars/0",
        r"prompt_encoder.point_embeddings.3.weight",
    ),
    (_HUB_PROMPTS + r"((?:not_a_point|no_mask)_embed)/vars/0", r"prompt_encoder.\1.weight"),
    (
        _HUB_PROMPTS + r"mask_downscaler/layers/conv2d/vars/{p}",
        r"prompt_encoder.mask_downscaling.0.\1",
    ),
    (
        _HUB_PROMPTS + r"mask_downscaler/layers/layer_normalization/vars/{p}",
        r"prompt_encoder.mask_downscaling.1.\1",
    ),
    (
        _HUB_PROMPTS + r"mask_downscaler/layers/conv2d_1/vars/{p}",
        r"prompt_encoder.mask_downscaling.3.\1",
    ),
    (
        _HUB_PROMPTS + r"mask_downscaler/layers/layer_normalization_1/vars/{p}",
        r"prompt_encoder.mask_downscaling.4.\1",
    ),
    (
        _HUB_PROMPTS + r"mask_downscaler/layers/conv2d_2/vars/{p}",
        r"prompt_encoder.mask_downscaling.6.\1",
    ),
    (_HUB_DECODER + r"(iou_token|mask_tokens)/vars/0", r"mask_decoder.\1.weight"),
    *(
        (
            _HUB_TWO_WAY + rf"{theirs}/{projection}/vars/{{p}}",
            rf"mask_decoder.transformer.layers.\1.{ours}.{our_projection}.\2",
        )
        for theirs, ours in _HUB_ATTENTIONS.items()
        for projection, our_projection in _HUB_PROJECTIONS.items()
    ),
    (
        _HUB_TWO_WAY + r"layer_norm([1-4])/vars/{p}",
        r"mask_decoder.transformer.layers.\1.norm\2.\3",
    ),
    (
        _HUB_TWO_WAY + r"mlp_block/mlp_block/layers/dense/vars/{p}",
        r"mask_decoder.transformer.layers.\1.mlp.lin1.\2",
    ),
    (
        _HUB_TWO_WAY + r"mlp_block/mlp_block/layers/dense_1/vars/{p}",
        r"mask_decoder.transformer.layers.\1.mlp.lin2.\2",
    ),
    *(
        (
            _HUB_DECODER + rf"transformer/final_attention_token_to_image/{projection}/vars/{{p}}",
            rf"mask_decoder.transformer.final_attn_token_to_image.{ours}.\1",
        )
        for projection, ours in _HUB_PROJECTIONS.items()
    ),
    (
        _HUB_DECODER + r"transformer/final_layer_norm/vars/{p}",
        r"mask_decoder.transformer.norm_final_attn.\1",
    ),
    (
        _HUB_DECODER + r"output_upscaling/layers/conv2d_transpose/vars/{p}",
        r"mask_decoder.output_upscaling.0.\1",
    ),
    (
        _HUB_DECODER + r"output_upscaling/layers/layer_normalization/vars/{p}",
        r"mask_decoder.output_upscaling.1.\1",
    ),
    (
        _HUB_DECODER + r"output_upscaling/layers/conv2d_transpose_1/vars/{p}",
        r"mask_decoder.output_upscaling.3.\1",
    ),
    (
        _HUB_DECODER + r"output_hypernetworks_mlps/mlp{n}/mlp_block/layers/dense{n}/vars/{p}",
        r"mask_decoder.output_hypernetworks_mlps.\1.layers.\2.\3",
    ),
    (
        _HUB_DECODER + r"iou_prediction_head/mlp_block/layers/dense{n}/vars/{p}",
        r"mask_decoder.iou_prediction_head.layers.\1.\2",
    ),
)

# Keras saves a layer under the first attribute that leads to it in alphabetical order, and lists
# by class. `layers` of a model or of the image encoder is such an attribute.
_ENCODER = r"(?:layers/image_encoder_vi_t|image_encoder)/"
_PROMPTS = r"(?:layers/)?prompt_encoder/"
_DECODER = r"(?:layers/)?mask_decoder/"

#: Layout of our own `.weights.h5`.
OWN_KERAS: Table = (
    (_ENCODER + r"vars/0", r"image_encoder.pos_embed"),
    (_ENCODER + r"(?:patch_embed|layers/conv2d)/vars/{p}", r"image_encoder.patch_embed.proj.\1"),
    (_ENCODER + r"blocks/block{n}/attn/vars/0", r"image_encoder.blocks.\1.attn.rel_pos_h"),
    (_ENCODER + r"blocks/block{n}/attn/vars/1", r"image_encoder.blocks.\1.attn.rel_pos_w"),
    (
        _ENCODER + r"blocks/block{n}/(attn|mlp)/(qkv|proj|lin1|lin2)/vars/{p}",
        r"image_encoder.blocks.\1.\2.\3.\4",
    ),
    (_ENCODER + r"blocks/block{n}/norm([12])/vars/{p}", r"image_encoder.blocks.\1.norm\2.\3"),
    (_ENCODER + r"(?:neck/conv2d|layers/conv2d_1)/vars/{p}", r"image_encoder.neck.0.\1"),
    (_ENCODER + r"(?:neck|layers)/layer_normalization/vars/{p}", r"image_encoder.neck.1.\1"),
    (_ENCODER + r"(?:neck/conv2d_1|layers/conv2d_2)/vars/{p}", r"image_encoder.neck.2.\1"),
    (_ENCODER + r"(?:neck|layers)/layer_normalization_1/vars/{p}", r"image_encoder.neck.3.\1"),
    (_PROMPTS + r"pe_layer/vars/0", _FOURIER),
    (_PROMPTS + r"vars/([0-3])", r"prompt_encoder.point_embeddings.\1.weight"),
    (_PROMPTS + r"vars/4", r"prompt_encoder.not_a_point_embed.weight"),
    (_PROMPTS + r"vars/5", r"prompt_encoder.no_mask_embed.weight"),
    (_PROMPTS + r"mask_downscaling/conv2d/vars/{p}", r"prompt_encoder.mask_downscaling.0.\1"),
    (
        _PROMPTS + r"mask_downscaling/layer_normalization/vars/{p}",
        r"prompt_encoder.mask_downscaling.1.\1",
    ),
    (_PROMPTS + r"mask_downscaling/conv2d_1/vars/{p}", r"prompt_encoder.mask_downscaling.3.\1"),
    (
        _PROMPTS + r"mask_downscaling/layer_normalization_1/vars/{p}",
        r"prompt_encoder.mask_downscaling.4.\1",
    ),
    (_PROMPTS + r"mask_downscaling/conv2d_2/vars/{p}", r"prompt_encoder.mask_downscaling.6.\1"),
    (_DECODER + r"vars/0", r"mask_decoder.iou_token.weight"),
    (_DECODER + r"vars/1", r"mask_decoder.mask_tokens.weight"),
    (
        _DECODER + r"transformer/layers/two_way_attention_block{n}/(norm[1-4])/vars/{p}",
        r"mask_decoder.transformer.layers.\1.\2.\3",
    ),
    (
        _DECODER + r"transformer/layers/two_way_attention_block{n}/(\w+)/(\w+)/vars/{p}",
        r"mask_decoder.transformer.layers.\1.\2.\3.\4",
    ),
    (
        _DECODER + r"transformer/final_attn_token_to_image/(\w+)/vars/{p}",
        r"mask_decoder.transformer.final_attn_token_to_image.\1.\2",
    ),
    (
        _DECODER + r"transformer/norm_final_attn/vars/{p}",
        r"mask_decoder.transformer.norm_final_attn.\1",
    ),
    (
        _DECODER + r"output_upscaling/conv2d_transpose/vars/{p}",
        r"mask_decoder.output_upscaling.0.\1",
    ),
    (
        _DECODER + r"output_upscaling/layer_normalization/vars/{p}",
        r"mask_decoder.output_upscaling.1.\1",
    ),
    (
        _DECODER + r"output_upscaling/conv2d_transpose_1/vars/{p}",
        r"mask_decoder.output_upscaling.3.\1",
    ),
    (
        _DECODER + r"output_hypernetworks_mlps/mlp{n}/layers/dense{n}/vars/{p}",
        r"mask_decoder.output_hypernetworks_mlps.\1.layers.\2.\3",
    ),
    (
        _DECODER + r"iou_prediction_head/layers/dense{n}/vars/{p}",
        r"mask_decoder.iou_prediction_head.layers.\1.\2",
    ),
)
