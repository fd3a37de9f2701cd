"""The rebalancing methods: one file each, and their union here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.rebalancers.crt import CrtSettings
from ltrec.rebalancers.joint import JointSettings
from ltrec.rebalancers.learnable_tau import LearnableTauSettings
from ltrec.rebalancers.lws import LwsSettings
from ltrec.rebalancers.ncm import NcmSettings
from ltrec.rebalancers.published import PublishedSettings
from ltrec.rebalancers.tau_norm import TauNormSettings

RebalancerSettings = Annotated[
    JointSettings
    | NcmSettings
    | CrtSettings
    | TauNormSettings
    | LearnableTauSettings
    | LwsSettings
    | PublishedSettings,
    Field(discriminator="method"),
]
