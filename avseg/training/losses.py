"""Eq. 3 and Eq. 4, the losses that base models are supervised with."""

from avseg.models.layers import dice_loss, masked_bce

__all__ = ["dice_loss", "masked_bce"]
