"""The built-in plugins; registered by an entry point, as third-party plugins are."""

from torch import Tensor

from composer import Register, hookimpl
from composer_plugins import transforms
from composer_plugins.backends.deepfloyd import load_deepfloyd
from composer_plugins.backends.diffusers_unet import load_diffusers
from composer_plugins.backends.latent import load_latent
from composer_plugins.backends.mnist import (
    load_mnist_ddpm,
    load_mnist_few_step,
    load_mnist_flow,
    load_mnist_latent,
)
from composer_plugins.backends.nouns import load_nouns
from composer_plugins.backends.pixel_flow import load_prx
from composer_plugins.backends.with_weak import WithWeak, load_with_weak
from composer_plugins.canvas import Canvas, Regions, load_canvas
from composer_plugins.cascade import Cascade, Stage
from composer_plugins.editing.daps import DAPS
from composer_plugins.editing.ddnm import DDNM
from composer_plugins.editing.differential import DifferentialEdit
from composer_plugins.editing.diffpir import DiffPIR
from composer_plugins.editing.flow_edit import FlowEdit
from composer_plugins.editing.inpaint import Inpaint
from composer_plugins.editing.inversion import invert
from composer_plugins.editing.lanpaint import LanPaint
from composer_plugins.editing.operators import BlockMean, Gray, KnownPixels
from composer_plugins.editing.reference import Reference
from composer_plugins.editing.rf_inversion import RFInversion
from composer_plugins.editing.sdedit import SDEdit
from composer_plugins.editing.super_resolution import SuperResolution
from composer_plugins.filters import GaussianBlur
from composer_plugins.guidance.adaptive import AdaptiveGuidance
from composer_plugins.guidance.apg import APG
from composer_plugins.guidance.autoguidance import Autoguidance
from composer_plugins.guidance.cfg import CFG
from composer_plugins.guidance.cfg_plus_plus import CFGPlusPlus
from composer_plugins.guidance.cfg_zero_star import CFGZeroStar
from composer_plugins.guidance.conjunction import Conjunction
from composer_plugins.guidance.distilled import DistilledGuidance
from composer_plugins.guidance.fdg import FDG
from composer_plugins.guidance.pag import PAG
from composer_plugins.guidance.rescale import Rescale
from composer_plugins.guidance.reused import ReusedGuidance
from composer_plugins.guidance.seg import SEG
from composer_plugins.guidance.slg import SLG
from composer_plugins.guidance.tcfg import TCFG
from composer_plugins.guidance.thresholding import DynamicThreshold
from composer_plugins.illusions.anagram import Anagram
from composer_plugins.illusions.components import Components
from composer_plugins.illusions.decompositions import (
    Bands,
    GrayColour,
    LaplacianPyramid,
    Masks,
    MotionBlur,
    Scales,
)
from composer_plugins.illusions.hybrid import Hybrid, TripleHybrid
from composer_plugins.illusions.latent_anagram import LatentAnagram
from composer_plugins.solvers.adams_bashforth import AdamsBashforth
from composer_plugins.solvers.adaptive import Adaptive
from composer_plugins.solvers.consistency import Consistency
from composer_plugins.solvers.likelihood import log_likelihood
from composer_plugins.solvers.spaced import Spaced
from composer_plugins.solvers.timesteps import Timesteps
from composer_plugins.solvers.unipc import UniPC
from composer_plugins.steering.climb import Climb
from composer_plugins.steering.dps import DPS
from composer_plugins.steering.feynman_kac import FeynmanKac
from composer_plugins.steering.feynman_kac_corrector import FeynmanKacCorrector
from composer_plugins.steering.langevin import Langevin
from composer_plugins.steering.losses import SquaredError
from composer_plugins.steering.particles import Particles
from composer_plugins.steering.reads_as import ReadsAs
from composer_plugins.steering.recurrence import Recurrence
from composer_plugins.steering.steer import Steer
from composer_plugins.steering.super_diff import SuperDiff
from composer_plugins.steering.tfg import TFG

__all__ = [
    "APG",
    "CFG",
    "DAPS",
    "DDNM",
    "DPS",
    "FDG",
    "PAG",
    "SEG",
    "SLG",
    "TCFG",
    "TFG",
    "AdamsBashforth",
    "Adaptive",
    "AdaptiveGuidance",
    "Anagram",
    "Autoguidance",
    "Bands",
    "BlockMean",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Canvas",
    "Cascade",
    "Climb",
    "Components",
    "Conjunction",
    "Consistency",
    "DiffPIR",
    "DifferentialEdit",
    "DistilledGuidance",
    "DynamicThreshold",
    "FeynmanKac",
    "FeynmanKacCorrector",
    "FlowEdit",
    "GaussianBlur",
    "Gray",
    "GrayColour",
    "Hybrid",
    "Inpaint",
    "KnownPixels",
    "LanPaint",
    "Langevin",
    "LaplacianPyramid",
    "LatentAnagram",
    "Masks",
    "MotionBlur",
    "Particles",
    "RFInversion",
    "ReadsAs",
    "Recurrence",
    "Reference",
    "Regions",
    "Rescale",
    "ReusedGuidance",
    "SDEdit",
    "Scales",
    "Spaced",
    "SquaredError",
    "Stage",
    "Steer",
    "SuperDiff",
    "SuperResolution",
    "Timesteps",
    "TripleHybrid",
    "UniPC",
    "WithWeak",
    "invert",
    "log_likelihood",
]


@hookimpl
def register_plugins(register: Register) -> None:
    register.plugin("cfg", CFG, example=lambda: CFG(3.0))
    register.plugin("anagram", Anagram, example=lambda: Anagram({"identity": 1, "rotate_180": 2}))
    register.plugin(
        "latent_anagram",
        LatentAnagram,
        example=lambda: LatentAnagram({"identity": 1, "rotate_180": 2}),
    )
    register.plugin("components", Components, example=lambda: Components(Bands(), (1, 2)))
    register.plugin("hybrid", Hybrid, example=lambda: Hybrid(1, 2))
    register.plugin("triple_hybrid", TripleHybrid, example=lambda: TripleHybrid(1, 2, 3))
    register.plugin("inpaint", Inpaint)
    register.plugin("sdedit", SDEdit)
    register.plugin("super_resolution", SuperResolution)
    register.plugin("conjunction", Conjunction, example=lambda: Conjunction({1: 2.0, 2: -0.5}))
    register.plugin("reference", Reference)
    register.plugin("particles", Particles)
    register.plugin("climb", Climb, example=lambda: Climb(_brightness))
    register.plugin("feynman_kac", FeynmanKac)
    register.plugin(
        "feynman_kac_corrector",
        FeynmanKacCorrector,
        example=lambda: FeynmanKacCorrector([1, 2], (0.5, 0.5)),
    )
    register.plugin("langevin", Langevin)
    register.plugin("steer", Steer, example=lambda: Steer(_brightness))
    register.plugin("dps", DPS, example=lambda: DPS(_brightness))
    register.plugin("tfg", TFG, example=lambda: TFG(_brightness))
    register.plugin("recurrence", Recurrence)
    register.loss("squared_error", SquaredError)
    register.plugin("super_diff", SuperDiff, example=lambda: SuperDiff([1, 2]))
    register.plugin("lanpaint", LanPaint)
    register.plugin("ddnm", DDNM)
    register.plugin("diffpir", DiffPIR)
    register.plugin("daps", DAPS)
    register.plugin("differential_edit", DifferentialEdit)
    register.plugin("flow_edit", FlowEdit)
    register.plugin("rf_inversion", RFInversion)
    register.decomposition("known_pixels", KnownPixels)
    register.decomposition("block_mean", BlockMean)
    register.decomposition("gray", Gray, example=lambda: Gray(3))
    register.plugin("dynamic_threshold", DynamicThreshold)
    register.plugin("distilled_guidance", DistilledGuidance)
    register.plugin("regions", Regions)
    register.plugin("rescale", Rescale)
    register.plugin("apg", APG)
    register.plugin("autoguidance", Autoguidance)
    register.plugin("adaptive_guidance", AdaptiveGuidance, example=lambda: AdaptiveGuidance(3.0))
    register.plugin("reused_guidance", ReusedGuidance, example=lambda: ReusedGuidance(3.0))
    register.plugin("cfg_plus_plus", CFGPlusPlus, example=lambda: CFGPlusPlus(0.6))
    register.plugin("cfg_zero_star", CFGZeroStar, example=lambda: CFGZeroStar(4.0))
    register.plugin("pag", PAG)
    register.plugin("seg", SEG)
    register.plugin("slg", SLG)
    register.plugin("tcfg", TCFG, example=lambda: TCFG(4.0))
    register.plugin("fdg", FDG, example=lambda: FDG((2.0, 5.0)))
    register.score("reads_as", ReadsAs)
    register.decomposition("bands", Bands)
    register.decomposition("laplacian_pyramid", LaplacianPyramid)
    register.decomposition("gray_colour", GrayColour)
    register.decomposition("motion_blur", MotionBlur)
    register.decomposition("masks", Masks)
    register.decomposition("scales", Scales)
    register.transform("identity", transforms.Identity)
    register.transform("flip", transforms.Flip)
    register.transform("rotate_180", transforms.Rotate180)
    register.transform("rotate_cw", transforms.RotateClockwise)
    register.transform("rotate_ccw", transforms.RotateCounterclockwise)
    register.transform("skew", transforms.Skew)
    register.transform("shear", transforms.Shear)
    register.transform("roll", transforms.Roll)
    register.transform("negative", transforms.Negative)
    register.transform("detail_negative", transforms.DetailNegative)
    register.transform("patch_permute", transforms.PatchPermute)
    register.transform("pixel_permute", transforms.PixelPermute)
    register.transform(
        "permutation", transforms.Permutation, example=lambda: transforms.Permutation((2, 0, 3, 1))
    )
    register.transform("jigsaw", transforms.Jigsaw)
    register.transform("inner_circle", transforms.InnerCircle)
    register.transform("square_hinge", transforms.SquareHinge)
    register.transform("channel_permutation", transforms.ChannelPermutation)
    register.transform("colour_rotation", transforms.ColourRotation)
    register.transform("orthogonal", transforms.Orthogonal)
    # A recipe may set these options; others name files or models of the hub. Models of prompts
    # have none, because they always read the hub and write the user's cache.
    placement = "device", "dtype"
    register.backend("mnist", load_mnist_flow, safe_options=(*placement, "share"))
    register.backend("mnist-ddpm", load_mnist_ddpm, safe_options=(*placement, "share"))
    register.backend("mnist-few-step", load_mnist_few_step, safe_options=(*placement, "share"))
    register.backend("mnist-latent", load_mnist_latent, safe_options=placement)
    register.backend("nouns", load_nouns, safe_options=placement)
    register.backend("with_weak", load_with_weak, safe_options=())
    canvas = "size", "overlap", "wrap", "window"  # of the default model, which is shipped
    register.backend("canvas", load_canvas, safe_options=canvas)
    register.backend("diffusers", load_diffusers, safe_options=(*placement, "unconditional_label"))
    register.backend("deepfloyd", load_deepfloyd)
    register.backend("latent", load_latent)
    register.backend("prx", load_prx)
    register.solver("consistency", Consistency)
    register.solver("adams_bashforth", AdamsBashforth)
    register.solver("unipc", UniPC)
    register.solver("adaptive", Adaptive)
    register.solver("spaced", Spaced)
    register.solver("timesteps", Timesteps)


def _brightness(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B,): an example of a loss."""
    return x.mean((1, 2, 3))
