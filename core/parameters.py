"""How many parameters the modules of a checkpoint have, from its geometry."""

from itertools import pairwise

from core.geometry import AutoencoderConfig, BagelConfig, DecoderConfig, VisionConfig

TIME_SINUSOIDS = 256


def layer_matrices(config: DecoderConfig) -> list[tuple[int, int]]:
    """Rows and columns of the matrices of one expert in a decoder layer: those that can be quantized."""
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    joint = heads + 2 * config.num_kv_heads * config.head_dim
    return [(joint, width), (width, heads), (2 * inner, width), (width, inner)]


def layer_vectors(config: DecoderConfig) -> int:
    """The other parameters of one expert in a decoder layer: biases and norms."""
    joint = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return joint + 2 * config.hidden_size + 2 * config.head_dim


def other_parameters(config: BagelConfig) -> int:
    """The parameters outside the decoder's layers: embeddings, heads, final norms, vision and the autoencoder."""
    width, latent = config.decoder.hidden_size, config.latent_width
    words = 2 * config.decoder.vocab_size * width + 2 * width
    latents = _linear(width, latent) + _linear(latent, width) + config.latent_side**2 * width
    time = _linear(TIME_SINUSOIDS, width) + _linear(width, width)
    connector = _linear(config.vision.hidden_size, width) + _linear(width, width) + config.vision_side**2 * width
    return words + latents + time + connector + _vision(config.vision) + _autoencoder(config.autoencoder)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _vision(config: VisionConfig) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    layer = 4 * width + 4 * _linear(width, width) + _linear(width, inner) + _linear(inner, width)
    embedding = _linear(3 * config.patch_px**2, width) + config.num_positions * width
    return embedding + config.num_layers * layer + 2 * width


def _autoencoder(config: AutoencoderConfig) -> int:
    first, *_, last = widths = [config.channels * factor for factor in config.multipliers]
    middle = 2 * _residual(last, last) + 2 * last + 4 * _conv(last, last, 1)
    between = [_conv(width, width) for width in widths]
    encoder = _conv(3, first) + sum(between[:-1]) + 2 * last + _conv(last, 2 * config.latent_channels)
    encoder += sum(_level([entry, *[width] * config.num_blocks]) for entry, width in pairwise([first, *widths]))
    decoder = _conv(config.latent_channels, last) + sum(between[1:]) + 2 * first + _conv(first, 3)
    decoder += sum(_level([entry, *[width] * (config.num_blocks + 1)]) for width, entry in pairwise([*widths, last]))
    return encoder + decoder + 2 * middle


def _level(widths: list[int]) -> int:
    return sum(_residual(inner, outer) for inner, outer in pairwise(widths))


def _residual(inner: int, outer: int) -> int:
    shortcut = _conv(inner, outer, 1) if inner != outer else 0
    return 2 * inner + _conv(inner, outer) + 2 * outer + _conv(outer, outer) + shortcut


def _conv(inner: int, outer: int, side: int = 3) -> int:
    return inner * outer * side**2 + outer
