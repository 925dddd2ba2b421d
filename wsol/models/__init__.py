"""Pixels -> `Prediction`: a localizer is an ordered list of stages (the backbone) and a head.

Images are float RGB in [0, 1], (b, 3, H, W); each backbone normalizes inside. Names resolve late: importing the room imports no
torch, and monai (6 s) is imported only where a `resnet18` is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsol._names import lazy

if TYPE_CHECKING:
    from wsol.models.adapter import from_module as from_module
    from wsol.models.backbones import Backbone as Backbone
    from wsol.models.build import build_localizer as build_localizer
    from wsol.models.checkpoint import checkpoint_recipe as checkpoint_recipe
    from wsol.models.checkpoint import load_checkpoint as load_checkpoint
    from wsol.models.checkpoint import save_checkpoint as save_checkpoint
    from wsol.models.encoded import Encoded as Encoded
    from wsol.models.heads.base import Head as Head
    from wsol.models.heads.decoders import PixelHead as PixelHead
    from wsol.models.heads.peaks import local_maxima as local_maxima
    from wsol.models.heads.readout import Readout as Readout
    from wsol.models.localizer import Features as Features
    from wsol.models.localizer import Localizer as Localizer
    from wsol.models.localizer import Prediction as Prediction
    from wsol.models.quantized import Quantized as Quantized
    from wsol.models.receptive import GlobalReachError as GlobalReachError
    from wsol.models.receptive import Reach as Reach
    from wsol.models.receptive import bytes_per_pixel as bytes_per_pixel
    from wsol.models.receptive import reach as reach
    from wsol.models.rewire import guided_relu as guided_relu

_WHERE = {
    "Backbone": "backbones",
    "Encoded": "encoded",
    "Features": "localizer",
    "GlobalReachError": "receptive",
    "Head": "heads.base",
    "Localizer": "localizer",
    "PixelHead": "heads.decoders",
    "Prediction": "localizer",
    "Quantized": "quantized",
    "Reach": "receptive",
    "Readout": "heads.readout",
    "build_localizer": "build",
    "bytes_per_pixel": "receptive",
    "checkpoint_recipe": "checkpoint",
    "from_module": "adapter",
    "guided_relu": "rewire",
    "load_checkpoint": "checkpoint",
    "local_maxima": "heads.peaks",
    "reach": "receptive",
    "save_checkpoint": "checkpoint",
}

BACKBONES = {
    "efficientnet_lite0": "backbones.efficientnet:EfficientNetLite0",
    "efficientnet_lite1": "backbones.efficientnet:EfficientNetLite1",
    "efficientnet_lite2": "backbones.efficientnet:EfficientNetLite2",
    "resnet18": "backbones.resnet:ResNet18",
    "resnet50": "backbones.resnet:ResNet50",
    "densenet121": "backbones.densenet:DenseNet121",
    "vit_tiny": "backbones.transformer:VitTiny",
    "vit_small": "backbones.transformer:VitSmall",
    "timm:NAME": "backbones.timm_models:TimmBackbone",
    "stored:WIDTH": "backbones.stored:Stored",
}
"""Name -> `Backbone` class; the class says its `paper`, `channels` and `strides`."""


def backbone_entry(name: str) -> str:
    """The key of `BACKBONES` that a backbone falls under: `timm:resnet50` under `timm:NAME`, any other under its own name."""
    kind, _, rest = name.partition(":")
    return {"timm": "timm:NAME", "stored": "stored:WIDTH"}.get(kind, name) if rest else name


HEADS = {
    "gap": "heads.linear:Gap",
    "cam": "heads.linear:PooledFeatures",
    "max": "heads.linear:Max",
    "lse": "heads.linear:Lse",
    "wildcat": "heads.regions:Wildcat",
    "top-k": "heads.regions:TopK",
    "prm": "heads.peaks:Prm",
    "noisy-or": "heads.noisy_or:NoisyOr",
    "deep-mil": "heads.attention:DeepMil",
    "attention-mil": "heads.attention:AttentionMil",
    "acol": "heads.acol:Acol",
    "spg": "heads.spg:Spg",
    "ts-cam": "heads.ts_cam:TsCam",
    "decoded": "heads.decoders:Decoded",
    "pixel": "heads.decoders:Pixel",
    "readout": "heads.readout:Readout",
    "masker": "heads.masking:Masker",
}
"""Name -> `Head` class; its keyword arguments are the head's options."""

DECODERS = {"decoded": "pixels", "pixel": "pixels", "readout": "a readout", "masker": "masks"}
"""Heads with a decoder, and what it draws: noise, unless a strategy that trains it (`wsol.training.DECODED`) made it more."""

__all__ = ["BACKBONES", "DECODERS", "HEADS", "backbone_entry", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
