"""Several processes that work on one stage, as torchrun starts them: their ranks, and what they exchange."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ltrec import console
from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

_TIMEOUT = timedelta(minutes=10)
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The processes of a stage.

    Attributes:
        rank: The rank of this process, counted from 0; the first alone reads resume states, writes and speaks.
        size: The number of processes.
        local_size: The number of those that share this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all ranks."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, dist.ReduceOp.SUM)

    def maximum(self, *tensors: Tensor) -> None:
        """Replace tensors by their largest values over all ranks."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def from_first(self, content: Any) -> Any:
        """Return on every rank what the first one gives as `content`."""
        if self.size == 1:
            return content
        box = [content]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the first one's buffers, such as batch norm's statistics."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def gather(self, rows: Tensor, count: int) -> Tensor | None:
        """Return a batch's `count` rows on the first rank, else None; rank r gives the rows r, r + size and so on."""
        if self.size == 1:
            return rows
        most = -(-count // self.size)
        sent = torch.zeros((most, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        sent[: len(rows)] = rows
        parts = [torch.empty_like(sent) for _ in range(self.size)] if self.first else None
        dist.gather(sent, parts, dst=0)
        return None if parts is None else torch.stack(parts, dim=1).flatten(0, 1)[:count]

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()


def local_rank() -> int:
    """Return the rank of this process among those of its machine, which is the number of its GPU."""
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, and yield their world; without torchrun, this process is alone.

    Raises:
        UserError: a process did not come within ten minutes, or went away.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield SINGLE_PROCESS
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if missing := [name for name in _ENVIRONMENT if name not in os.environ]:
        raise UserError(f"{', '.join(missing)} not set, though WORLD_SIZE is; torchrun sets them all", where="torchrun")
    world = World(*(_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = next(rendezvous("env://", timeout=_TIMEOUT))[0]
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # torchrun keeps this store over restarts, with the addresses of the processes that are gone.
            store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=_TIMEOUT,
            device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
        if not world.first:
            console.set_verbosity(console.Verbosity.QUIET)
        yield world
        dist.barrier()
    except RuntimeError as error:
        # gloo throws plain RuntimeErrors that carry its source file's path.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise UserError(
            f"rank {world.rank} of {world.size} lost the others ({one_line(error, 160)}); what was saved after the last"
            " epoch stays, and the next run goes on from there",
            where="torchrun",
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _number(name: str) -> int:
    """Return a number that torchrun set in the environment."""
    try:
        return int(os.environ[name])
    except ValueError:
        raise UserError(f"{name} is no number: {os.environ[name]!r}; torchrun sets it", where="torchrun") from None
