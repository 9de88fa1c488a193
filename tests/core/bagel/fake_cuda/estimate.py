"""How long the recorded kernels would take one after the other: from bytes and FLOPs, and so only a lead."""

from dataclasses import dataclass

from recipes.recipe import ImageSettings
from tests.core.bagel.fake_cuda.phases import guided_steps
from tests.core.bagel.fake_cuda.recorder import Op, Phase

EFFICIENCY = {
    "_scaled_dot_product_flash_attention": 0.50,
    "_scaled_dot_product_cudnn_attention": 0.78,
    "_scaled_dot_product_efficient_attention": 0.30,
    "convolution": 0.50,
}
"""Assumed shares of the rate of products."""
FLOAT32 = 0.06
"""The same for products in float32."""


@dataclass(frozen=True)
class Card:
    """Rates of a GPU and its host; the defaults are measured ones of an H200."""

    bandwidth: float = 4.3e12
    """Bytes a second, read and written."""
    flops: float = 790e12
    """A second, of bfloat16 products."""
    floor_s: float = 2e-6
    """The shortest kernel."""
    launch_s: float = 5e-6
    """The host's time for a kernel."""
    view_s: float = 1.5e-6

    def op_s(self, op: Op) -> float:
        rate = self.flops * (FLOAT32 if op.float32 else EFFICIENCY.get(op.name, 1.0))
        return max(op.flops / rate, (op.read + op.written) / self.bandwidth, self.floor_s)

    def gpu_s(self, phase: Phase) -> float:
        return sum(map(self.op_s, phase.ops))

    def host_s(self, phase: Phase) -> float:
        return phase.launches * self.launch_s + phase.views * self.view_s

    def image_s(self, phases: dict[str, Phase], name: str, settings: ImageSettings) -> float:
        """A whole image: its first step with the preparations, the other guided and plain ones, and the VAE."""
        guided = guided_steps(settings)
        plain = settings.num_timesteps - 1 - guided
        took = self.gpu_s(phases[f"{name}: first step"]) + self.gpu_s(phases[f"{name}: guided step"]) * (guided - 1)
        if plain:
            took += self.gpu_s(phases[f"{name}: plain step"]) * plain
        return took + self.gpu_s(phases["generation: VAE decode"])
