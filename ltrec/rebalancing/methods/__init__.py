"""The rebalancing methods: one file each, and their union here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.rebalancing.methods.crt import CrtSettings
from ltrec.rebalancing.methods.disalign import DisAlignSettings
from ltrec.rebalancing.methods.ensemble import EnsembleSettings
from ltrec.rebalancing.methods.gda import GdaSettings
from ltrec.rebalancing.methods.joint import JointSettings
from ltrec.rebalancing.methods.knn import KnnSettings
from ltrec.rebalancing.methods.learnable_tau import LearnableTauSettings
from ltrec.rebalancing.methods.logit_adjustment import LogitAdjustmentSettings
from ltrec.rebalancing.methods.lws import LwsSettings
from ltrec.rebalancing.methods.ncm import NcmSettings
from ltrec.rebalancing.methods.published import PublishedSettings
from ltrec.rebalancing.methods.ridge import RidgeSettings
from ltrec.rebalancing.methods.tau_norm import TauNormSettings

MemberSettings = Annotated[
    JointSettings
    | NcmSettings
    | CrtSettings
    | TauNormSettings
    | LearnableTauSettings
    | LwsSettings
    | PublishedSettings
    | LogitAdjustmentSettings
    | GdaSettings
    | RidgeSettings
    | KnnSettings
    | DisAlignSettings,
    Field(discriminator="method"),
]
"""The methods that make one head, of which an ensemble may be made."""

RebalancerSettings = Annotated[MemberSettings | EnsembleSettings, Field(discriminator="method")]

EnsembleSettings.model_rebuild(_types_namespace={"MemberSettings": MemberSettings})
