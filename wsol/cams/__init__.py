"""Localizer + images + classes -> one raw map per image, and from raw maps to scores.

Maps are raw: signed, before the final ReLU, without bias, detached, float32 (b, h, w) at feature resolution. Scaling is apart
from the methods: `finish`. Names resolve late: importing the room imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsol._names import lazy

if TYPE_CHECKING:
    from wsol.cams.base import Cam as Cam
    from wsol.cams.drawing import Maps as Maps
    from wsol.cams.drawing import cam as cam
    from wsol.cams.drawing import cams as cams
    from wsol.cams.drawing import drawer as drawer
    from wsol.cams.evidence import Evidence as Evidence
    from wsol.cams.field import Route as Route
    from wsol.cams.field import draw_cells as draw_cells
    from wsol.cams.field import route as route
    from wsol.cams.finishing import finish as finish
    from wsol.cams.masked import score_cams as score_cams

# No module here may bear the name of a function of the face: importing it would put the module in the function's place.
_WHERE = {
    "Cam": "base",
    "Evidence": "evidence",
    "Maps": "drawing",
    "Route": "field",
    "cam": "drawing",
    "cams": "drawing",
    "draw_cells": "field",
    "drawer": "drawing",
    "finish": "finishing",
    "route": "field",
    "score_cams": "masked",
}

METHODS = {
    "cam": "linear:ClassMap",
    "native": "linear:NativeMap",
    "grad-cam": "gradient:GradCam",
    "grad-cam++": "moments:GradCamPlusPlus",
    "smooth-grad-cam++": "moments:SmoothGradCamPlusPlus",
    "xgrad-cam": "gradient:XGradCam",
    "hirescam": "gradient:HiResCam",
    "layer-cam": "gradient:LayerCam",
    "eigen-cam": "eigen:EigenCam",
    "eigen-grad-cam": "eigen:EigenGradCam",
    "guided-grad-cam": "guided:GuidedGradCam",
    "ablation-cam": "tail:AblationCam",
    "recipro-cam": "tail:ReciproCam",
    "prm": "peaks:PeakResponse",
    "fd-cam": "groups:FdCam",
    "shap-cam": "shapley:ShapCam",
    "score-cam": "masked:ScoreCam",
    "ss-cam": "masked:SsCam",
    "is-cam": "masked:IsCam",
    "abs-cam": "masked:AbsCam",
    "gradient": "inputs:Gradient",
    "smooth-grad": "inputs:SmoothGrad",
    "integrated-gradients": "inputs:IntegratedGradients",
    "rise": "inputs:Rise",
    "occlusion": "inputs:Occlusion",
    "smooth": "wrappers:Smooth",
    "tta": "wrappers:Tta",
    "fused": "wrappers:Fused",
    "sess": "sess:Sess",
    "masker": "trained:Masker",
}
"""Name -> `Cam` class; its keyword arguments are the method's options, its class attributes the facts about it."""

__all__ = ["METHODS", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
