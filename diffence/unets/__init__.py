"""Diffusion networks: the torch reference, its training, the checkpoint families, and programs for the core."""

from diffence.unets.checkpoint import DiffusionModel, load, save
from diffence.unets.ddpm import DDPMConfig, DDPMUNet
from diffence.unets.program import Program, ProgramBuilder
from diffence.unets.training import train_diffusion

__all__ = [
    "DDPMConfig",
    "DDPMUNet",
    "DiffusionModel",
    "Program",
    "ProgramBuilder",
    "load",
    "save",
    "train_diffusion",
]
