"""How deep in a backbone a parameter lies: what is frozen, unfrozen and slowed down by depth goes by this alone.

A backbone is a stem, blocks, and perhaps a top behind the last of them. In networks with layer norms, as transformers
and what is built like them (Swin, ConvNeXt, MaxViT), the blocks are the residual ones: a ViT-B has twelve.
In others they are the parts that the network's authors named: a ResNet's are layer1 … layer4, an EfficientNet's its
stages; single layers beside each other are one part. What lies between two blocks, such as the downsampling of a new
stage, belongs to the next one. The stem is what comes before the first: patches and positions, or the first convolution
and its norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_MOST_OF_TOP, _MOST_OF_PART = 0.5, 0.96  # AlexNet's linear layers, one part, hold 95 %


@dataclass(frozen=True)
class Depths:
    """A backbone's parts, each given by the names of its modules and parameters.

    Attributes:
        parts: The stem and the blocks, from the input to the output.
        top: What comes behind the last block, such as a transformer's last norm; often nothing.
    """

    parts: list[list[str]]
    top: list[str]

    def of(self, parameter: str) -> int:
        """Return a parameter's depth from the top: 0 in the top itself, 1 in the last block, most in the stem."""
        holders = (depth for depth, part in enumerate(reversed(self.parts), start=1) if within(parameter, part))
        return next(holders, 0)

    def before_last(self, count: int) -> list[str]:
        """Return the names of all that comes before the last `count` parts; with 0 of them, the top's too."""
        last = len(self.parts) - count
        return [name for part in self.parts[:last] for name in part] + ([] if count else self.top)


def depths(backbone: nn.Module) -> Depths:
    """Return the parts of a backbone.

    Raises:
        UserError: Nearly all of it would be one part, or its top: it is built in a way that is not understood here.
    """
    parameters = [name for name, _ in backbone.named_parameters()]
    if blocks := _repeated_blocks(backbone):
        found = _around(blocks, parameters)
    else:
        found = Depths(_with_layers_joined(_named_parts(backbone, parameters), parameters), [])
    _require_told_apart(found, backbone)
    return found


def _require_told_apart(found: Depths, backbone: nn.Module) -> None:
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    for part, most in [(found.top, _MOST_OF_TOP), *((part, _MOST_OF_PART) for part in found.parts)]:
        share = sum(size for name, size in sizes.items() if within(name, part)) / max(sum(sizes.values()), 1)
        if share > most and len(sizes) > len(part):
            raise UserError(
                f"the depth of this backbone's parts cannot be told: {part[-1]} and what goes with it hold {share:.0%}"
                " of its parameters; allowed for it: freeze: {by: name}, and no layer_decay",
                where="params.yaml: represent",
            )


def within(name: str, parts: list[str]) -> bool:
    """Return whether a module or parameter is one of the named parts, or lies in one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def children(parameters: list[str], parent: str) -> list[str]:
    """Return the names of what lies directly below a part (empty: at the top), in order."""
    start = f"{parent}." if parent else ""
    below = (name.removeprefix(start) for name in parameters if name.startswith(start))
    return list(dict.fromkeys(name.partition(".")[0] for name in below))


def _repeated_blocks(backbone: nn.Module) -> list[str]:
    """Return the names of the blocks of a network with layer norms: of the innermost stacks of modules of one kind."""
    from torch import nn

    modules = dict(backbone.named_modules())
    if not any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in modules.values()):
        return []
    stacks = [name for name, module in modules.items() if _is_stack(module)]
    innermost = [name for name in stacks if not any(other.startswith(f"{name}.") for other in stacks)]
    return [f"{name}.{child}" for name in innermost for child, _ in modules[name].named_children()]


def _is_stack(module: nn.Module) -> bool:
    """Return whether a container holds several modules of one kind, which is neither PyTorch's own nor a container."""
    from torch import nn

    kinds = {type(child) for child in module.children()}
    return (
        isinstance(module, nn.Sequential | nn.ModuleList)
        and len(module) > 1
        and len(kinds) == 1
        and not any(kind.__module__.startswith("torch.nn.") or issubclass(kind, nn.Sequential) for kind in kinds)
    )


def _around(blocks: list[str], parameters: list[str]) -> Depths:
    """Return the blocks with what lies before, between and behind them, in the order of the parameters."""
    around = {".".join(block.split(".")[:count]) for block in blocks for count in range(1, block.count(".") + 1)}

    def part(parameter: str) -> str:
        """Return the block that a parameter is in, or the largest module around it that holds no block."""
        steps = parameter.split(".")
        return next(name for count in range(len(steps)) if (name := ".".join(steps[: count + 1])) not in around)

    parts: list[list[str]] = []
    waiting: list[str] = []
    for name in dict.fromkeys(map(part, parameters)):
        waiting.append(name)
        if name == blocks[0] and len(waiting) > 1:
            parts.append(waiting[:-1])
            waiting = [name]
        if name in blocks:
            parts.append(waiting)
            waiting = []
    return Depths(parts, waiting)


def _named_parts(backbone: nn.Module, parameters: list[str]) -> list[str]:
    """Return the names of the parts with parameters; those of the only one, if there is but one, and of its stages."""
    names = children(parameters, "")
    while len(names) == 1 and names[0] not in parameters:
        names = [f"{names[0]}.{child}" for child in children(parameters, names[0])]
    modules = dict(backbone.named_modules())
    parts: list[str] = []
    for name in names:
        stages = children(parameters, name) if _has_stages(modules, name) else []
        parts += [f"{name}.{stage}" for stage in stages] or [name]
    return parts


def _has_stages(modules: dict[str, nn.Module], name: str) -> bool:
    """Return whether a part is a sequence of stages, which are sequences in turn."""
    from torch import nn

    module = modules.get(name)
    return isinstance(module, nn.Sequential) and all(isinstance(stage, nn.Sequential) for stage in module)


def _with_layers_joined(names: list[str], parameters: list[str]) -> list[list[str]]:
    """Return the parts, neighbouring ones that are single layers joined, such as a stem's convolution and its norm."""
    known = set(parameters)

    def is_layer(name: str) -> bool:
        return name in known or all(f"{name}.{child}" in known for child in children(parameters, name))

    if all(map(is_layer, names)):
        return [[name] for name in names]
    runs = [(single, list(run)) for single, run in groupby(names, key=is_layer)]
    return [part for single, run in runs for part in ([run] if single else [[name] for name in run])]
