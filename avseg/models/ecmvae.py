"""ECMVAE (Mao et al., ICCV 2023): a conditional variational auto-encoder of image, sound and what both share.

Three Gaussian latents a frame say what is the image's own, what is the sound's own and what both share. A *prior* sees
image and sound; a *posterior*, which exists for training alone, sees the true mask as well. The latents are mixed into
the coarsest map, sound meets the pixels at four scales, and a convolutional decoder makes the mask.
"""

from dataclasses import dataclass
from math import log, pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.models.audio import EMBEDDING
from avseg.models.base import AVSModel, Prediction, register
from avseg.models.encoders import channels_of
from avseg.models.layers import at_least_single, masked_bce, mean_of_labelled
from avseg.models.tpavi import TPAVIBlock

Gaussian = tuple[Tensor, Tensor]  # mean and log-variance, each (N, latent_size)


@dataclass
class Options:
    """ECMVAE's own settings (``model.options``); the defaults are those of its authors' program.

    Attributes:
        latent_size: Numbers of each latent.
        mutual_size: Numbers that the bound of the mutual information compares.
        latent: What evaluation takes of a latent: its ``mean``; or a ``draw``, as the authors do, here the same
            standard normal numbers for every frame, so that a score does not depend on batches.
        kl_weight: Weight of the divergences of the posterior from the prior.
        mutual_weight: Weight of the mutual information of both codes, which is maximised.
        difference_weight: Weight of the correlation between what is shared and what is not.
        similarity_weight: Weight of the divergence between marked pixels and sound.
    """

    latent_size: int = 16
    mutual_size: int = 6
    latent: Literal["mean", "draw"] = "mean"
    kl_weight: float = 0.01
    mutual_weight: float = 0.001
    difference_weight: float = 0.001
    similarity_weight: float = 0.5


class Neck(nn.Sequential):
    """One map of the encoder -> ``width`` channels, by three linear steps: no activation stands anywhere in it."""

    def __init__(self, in_channels: int, width: int):
        steps: list[nn.Module] = []
        for index, channels in enumerate((in_channels, width, width)):
            size = 3 if index else 1
            steps += [nn.Conv2d(channels, width, size, padding=size // 2, bias=False), nn.BatchNorm2d(width)]
        super().__init__(*steps)


class Necks(nn.ModuleList):
    """A `Neck` for each map of an image encoder."""

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__(Neck(item, width) for item in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps of the encoder -> four maps ``(N, width, h, w)``."""
        return [neck(item) for neck, item in zip(self, maps, strict=True)]


class Squeezed(nn.Sequential):
    """Five strided convolutions, ``(N, C, S, S)`` -> ``(N, features)``; S is the image's size, a multiple of 32."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], image_size: int):
        steps: list[nn.Module] = []
        for before, after in zip((in_channels, *channels[:-1]), channels, strict=True):
            steps += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.01)]
        super().__init__(*steps, nn.Flatten())
        self.features = channels[-1] * (image_size // 2 ** len(channels)) ** 2


class Latent(nn.Module):
    """A Gaussian of what an image, a sound, or both say.

    Args:
        size: Numbers of the latent.
        image_size: Side of the image in pixels.
        image: Channels of the image; 0 without.
        sound: Whether sound is seen.
    """

    def __init__(self, size: int, image_size: int, image: int = 0, sound: bool = True):
        super().__init__()
        features = EMBEDDING if sound else 0
        if image:
            last = 64 if sound else 128
            self.convolutions = Squeezed(image, (16, 32, 64, last, last), image_size)
            if sound:
                self.image = nn.Linear(self.convolutions.features, 32)
            features += 32 if sound else self.convolutions.features
        self.mean = nn.Linear(features, size)
        self.logvar = nn.Linear(features, size)

    def forward(self, sound: Tensor | None = None, image: Tensor | None = None) -> Gaussian:
        """Sound ``(N, 128)``, image ``(N, C, H, W)``, or both."""
        seen = [] if sound is None else [sound]
        if image is not None:
            features = self.convolutions(image)
            seen.append(features if sound is None else self.image(features))
        x = torch.cat(seen, dim=1)
        return at_least_single(self.mean(x)), at_least_single(self.logvar(x))


class Codes(nn.Module):
    """Latents squeezed to two codes, mixed into the coarsest map, and measured against each other."""

    def __init__(self, width: int, options: Options):
        super().__init__()
        size = options.latent_size
        self.visual = nn.Linear(2 * size, size)
        self.audible = nn.Linear(2 * size, size)
        self.mix = nn.Conv2d(width + 2 * size, width, 1)
        self.mutual_mean = nn.Linear(size, options.mutual_size)
        self.mutual_logvar = nn.Linear(size, options.mutual_size)
        self.mutual_sound = nn.Linear(size, options.mutual_size)

    def forward(self, coarsest: Tensor, drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The map ``(N, width, h, w)`` with the latents of image, sound and both in it, and the codes ``(N, 2, z)``."""
        own, heard, shared = (item.to(coarsest.dtype) for item in drawn)
        visual = self.visual(torch.cat([own, shared], dim=1))
        audible = self.audible(torch.cat([heard, shared], dim=1))
        tiled = torch.cat([visual, audible], dim=1)[:, :, None, None].expand(-1, -1, *coarsest.shape[-2:])
        return self.mix(torch.cat([coarsest, tiled], dim=1)), torch.stack([visual, audible], dim=1)

    def mutual(self, codes: Tensor) -> Tensor:
        """A lower bound of the codes' mutual information, ``(N, 2, z)`` -> ``(N,)``."""
        visual, audible = codes.unbind(1)
        mean, spread = self.mutual_mean(visual).tanh(), self.mutual_logvar(visual).tanh()
        return -0.5 * ((mean - self.mutual_sound(audible).tanh()) ** 2 / spread.exp()).sum(dim=1)


class UnitSound(nn.Module):
    """Sound ``(…, 128)`` -> ``(…, width)``, divided by its norm; it is projected only where the widths differ."""

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Identity() if width == EMBEDDING else nn.Linear(EMBEDDING, width)

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        return unit(self.project(audio), dim=-1)


class FusionBlock(TPAVIBlock):
    """TPAVI's attention between pixels and sounds that are divided by their norms; the residual is normalised too."""

    def __init__(self, width: int):
        super().__init__(width)
        self.audio = UnitSound(width)  # type: ignore[assignment]

    def forward(self, x: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """See `TPAVIBlock.forward`."""
        return super().forward(unit(x, dim=2), audio)


class ResidualUnit(nn.Module):
    """``x`` plus two convolutions, each normalised and rectified: the second ReLU stands before the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, h, w)`` -> the same shape."""
        return x + F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Decoder(nn.Module):
    """From four fused maps, the coarsest first, to one logit for each pixel; sizes double by nearest neighbours."""

    def __init__(self, width: int):
        super().__init__()
        self.laterals = nn.ModuleList(ResidualUnit(width) for _ in range(3))  # strides 4, 8 and 16
        self.refine = nn.ModuleList(ResidualUnit(width) for _ in range(4))
        self.conv1 = nn.Conv2d(width, max(width // 2, 1), 3, padding=1)
        self.conv2 = nn.Conv2d(max(width // 2, 1), max(width // 4, 1), 3, padding=1)
        self.conv3 = nn.Conv2d(max(width // 4, 1), 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four maps ``(N, width, h, w)`` at strides 4, 8, 16, 32 -> ``(N, 1, H, W)``."""
        x = F.interpolate(self.refine[3](maps[3]), scale_factor=2, mode="nearest")
        for index in (2, 1, 0):
            x = F.interpolate(self.refine[index](x + self.laterals[index](maps[index])), scale_factor=2, mode="nearest")
        x = self.conv2(F.interpolate(self.conv1(x), scale_factor=2, mode="nearest"))
        logits: Tensor = self.conv3(F.relu(x))
        return logits


class Path(nn.Module):
    """What prior and posterior have of their own: necks, latents, codes and a decoder.

    Args:
        config: The model's.
        options: The model's.
        channels: Of the encoder's maps.
        mask: Channels of the mask that is seen: 0 for the prior, 1 for the posterior.
    """

    def __init__(self, config: ModelConfig, options: Options, channels: tuple[int, ...], mask: int):
        super().__init__()
        size, side = options.latent_size, config.inputs.seen_size
        self.neck = Necks(channels, config.width)
        self.own = Latent(size, side, image=3 + mask, sound=False)
        self.heard = Latent(size, side, image=mask)
        self.shared = Latent(size, side, image=3 + mask)
        self.codes = Codes(config.width, options)
        self.decoder = Decoder(config.width)

    def latents(self, frames: Tensor, sound: Tensor, mask: Tensor | None = None) -> list[Gaussian]:
        """Of image, sound and both, from frames ``(N, 3, H, W)``, sound ``(N, 128)`` and mask ``(N, 1, H, W)``."""
        seen = frames if mask is None else torch.cat([frames, mask], dim=1)
        return [self.own(image=seen), self.heard(sound, mask), self.shared(sound, seen)]


@dataclass
class Pass:
    """What one path, prior or posterior, says of ``N`` frames in ``(B, T)`` clips.

    Attributes:
        logits: ``(B, T, 1, H, W)``.
        latents: Of image, sound and both.
        drawn: What was drawn of them, ``(N, z)`` each.
        codes: ``(N, 2, z)``.
        maps: The fused maps ``(B, T, width, h, w)``.
        sounds: The normalised sounds ``(B, T, width)`` of every scale.
        mixed: The coarsest map with the latents in it.
    """

    logits: Tensor
    latents: list[Gaussian]
    drawn: list[Tensor]
    codes: Tensor
    maps: list[Tensor]
    sounds: list[Tensor]
    mixed: Tensor


@register("ecmvae")
class ECMVAE(AVSModel):
    """ECMVAE at any number of frames; the latents' linear layers follow the size that the model sees.

    In training, `compute` also makes the maps that the posterior starts from, and ``Prediction.aux`` carries what
    `loss` needs: the masks are seen there alone.
    """

    options_class = Options
    options: Options

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        channels = tuple(channels_of(self.image_encoder))
        self.prior = Path(config, self.options, channels, mask=0)
        self.posterior = Path(config, self.options, channels, mask=1)
        self.posterior.neck.load_state_dict(self.prior.neck.state_dict())
        self.posterior.decoder.load_state_dict(self.prior.decoder.state_dict())
        self.fusion = nn.ModuleList(FusionBlock(config.width) for _ in range(4))

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        maps: list[Tensor] = self.prior.neck(self.image_encoder(frames))
        return maps

    def compute(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        """See `AVSModel.compute`; in training both paths share the image encoder and the flow branch."""
        if not self.training:
            return super().compute(frames, audio, flow)
        encoded = self.image_encoder(frames.flatten(0, 1))
        maps, theirs = self.prior.neck(encoded), self.posterior.neck(encoded)
        if self.motion is not None:
            motion = self.motion_features(maps, flow)
            maps, theirs = self.motion.add(maps, motion), self.motion.add(theirs, motion)
        prediction = self.decode(maps, audio, frames.flatten(0, 1))
        prediction.aux["posterior"] = theirs
        return prediction

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        latents = self.prior.latents(frames, audio.flatten(0, 1))
        found = self._pass(self.prior, pyramid, audio, latents)
        return Prediction(found.logits, {"prior": vars(found), "frames": frames, "audio": audio})

    def _pass(
        self,
        path: Path,
        pyramid: list[Tensor],
        audio: Tensor,
        latents: list[Gaussian],
        keep: tuple[Tensor, Tensor] | None = None,
    ) -> Pass:
        """One path's answer; frames that are True in ``keep[0]`` have ``keep[1]`` for their coarsest map."""
        clips = audio.shape[:2]
        drawn = [self.draw(*latent) for latent in latents]
        mixed, codes = path.codes(pyramid[3], drawn)
        if keep is not None:
            mixed = torch.where(keep[0].view(-1, 1, 1, 1), keep[1].to(mixed.dtype), mixed)
        fused, sounds = [], []
        for block, item in zip(self.fusion, [*pyramid[:3], mixed], strict=True):
            whole, heard = block(item.unflatten(0, clips), audio)
            fused.append(whole)
            sounds.append(heard)
        logits = path.decoder([item.flatten(0, 1) for item in fused]).unflatten(0, clips)
        return Pass(logits, latents, drawn, codes, fused, sounds, mixed)

    def draw(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """A latent's value: drawn in training; in evaluation what `Options.latent` says."""
        if self.training:
            return mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        if self.options.latent == "mean":
            return mean
        generator = torch.Generator().manual_seed(1234)
        return mean + (0.5 * logvar).exp() * torch.randn(mean.shape[1], generator=generator).to(mean)

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """See `AVSModel.loss`: structure and similarity of both paths, and what binds the latents.

        Outside training, where there is no posterior, the terms are those of the prior alone.
        """
        options, counted = self.options, valid.flatten(2).gt(0).any(dim=2).flatten()
        prior = Pass(**{**prediction.aux["prior"], "logits": prediction.logits})
        answers, codes = [prior], [self.prior.codes]
        if "posterior" in prediction.aux:
            posterior = self._posterior(prediction, masks * valid, counted)
            answers, codes = [prior, posterior], [self.prior.codes, self.posterior.codes]
        terms = {"structure": _sum([structure_loss(item.logits, masks, valid) for item in answers])}
        similarity = _sum([similarity_loss(item, valid) for item in answers])
        mutual = _sum([mean_where(own.mutual(item.codes), counted) for own, item in zip(codes, answers, strict=True)])
        drawn = [[latent[counted] for latent in item.drawn] for item in answers]
        difference = _sum([decorrelation(part, shared) for *parts, shared in drawn for part in parts])
        terms["similarity"] = options.similarity_weight * similarity
        terms["mutual"] = -options.mutual_weight * mutual
        terms["difference"] = options.difference_weight * difference
        if "posterior" in prediction.aux:
            terms["kl"] = options.kl_weight * self.divergence(prior, posterior, counted)
        return terms

    def _posterior(self, prediction: Prediction, masks: Tensor, counted: Tensor) -> Pass:
        """The path that sees the masks; frames without a label keep the prior's coarsest map."""
        frames, audio = prediction.aux["frames"], prediction.aux["audio"]
        latents = self.posterior.latents(frames, audio.flatten(0, 1), masks.flatten(0, 1).to(frames.dtype))
        keep = None if bool(counted.all()) else (~counted, prediction.aux["prior"]["mixed"])
        return self._pass(self.posterior, prediction.aux["posterior"], audio, latents, keep)

    def divergence(self, prior: Pass, posterior: Pass, counted: Tensor) -> Tensor:
        """How far the posterior's latents are from the prior's, a mean over frames that are True in ``counted``."""
        (own_p, heard_p, both_p), (own_q, heard_q, both_q) = prior.latents, posterior.latents
        each = gaussian_kl(own_q, own_p) + gaussian_kl(heard_q, heard_p)
        # Densities of single draws in the place of distributions, as in the authors' program.
        p, q = (log_density(self.draw(*latent).detach(), latent) for latent in (both_p, both_q))
        middle = torch.logaddexp(p, q) - log(2)
        each = each + 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1)
        return mean_where(each, counted)


def unit(x: Tensor, dim: int) -> Tensor:
    """``x`` divided by its norm along ``dim``."""
    return x * (x.square().sum(dim=dim, keepdim=True) + 1e-6).rsqrt()


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()


def mean_where(each: Tensor, counted: Tensor) -> Tensor:
    """The mean of ``each`` ``(N,)`` where ``counted`` is True; 0 where nothing is."""
    return torch.where(counted, each, torch.zeros_like(each)).sum() / counted.sum().clamp(min=1)


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians, ``(N,)``, with exp(log-variance) as *standard deviation*.

    The draws take exp(log-variance / 2): an inconsistency of the authors' program that is kept.
    """
    ratio = q[1] - p[1]
    return (0.5 * ((2 * ratio).exp() + (q[0] - p[0]) ** 2 * (-2 * p[1]).exp() - 1) - ratio).sum(dim=1)


def log_density(x: Tensor, latent: Gaussian) -> Tensor:
    """The logarithm of each number's density under ``latent``, ``(N, z)``."""
    mean, logvar = latent
    return -0.5 * ((x - mean) ** 2 * (-logvar).exp() + logvar + log(2 * pi))


def decorrelation(a: Tensor, b: Tensor) -> Tensor:
    """Mean square of the correlations between two latents ``(N, z)`` over frames; 0 for fewer than two frames."""
    if len(a) < 2:
        return (a * 0).sum()
    centred = [item - item.mean(dim=0) for item in (a, b)]
    first, second = (item / (item.detach().norm(dim=1, keepdim=True) + 1e-6) for item in centred)
    return (first.T @ second).square().mean()


def structure_loss(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy with the smoothed mask, and 1 − IoU in which pixels near the mask's edge weigh up to six times.

    Args:
        logits: ``(B, T, 1, H, W)``.
        masks: The same shape, in [0, 1].
        valid: The same shape, bool.
    """
    logits, masks = at_least_single(logits), masks.to(torch.float32)
    entropy = masked_bce(logits, 0.999 * masks + 0.0005, valid)
    target = (masks * valid).flatten(0, 1)
    edge = (F.avg_pool2d(target, 31, stride=1, padding=15) - target).abs()
    weight = ((1 + 5 * edge) * valid.flatten(0, 1)).flatten(1)
    probability, target = logits.sigmoid().flatten(0, 1).flatten(1), target.flatten(1)
    shared = (probability * target * weight).sum(dim=1)
    total = ((probability + target) * weight).sum(dim=1)
    each = 1 - (shared + 1) / (total - shared + 1)
    return entropy + mean_of_labelled(each.unflatten(0, valid.shape[:2]), valid)


def similarity_loss(path: Pass, valid: Tensor) -> Tensor:
    """KL(sound ‖ marked pixels) of softmaxed features, summed over labelled frames, a mean over scales.

    A cell of a map counts by its share of valid pixels.
    """
    counted = valid.flatten(0, 1).to(torch.float32)
    logits = at_least_single(path.logits).flatten(0, 1) * counted
    labelled = counted.flatten(1).gt(0).any(dim=1)
    losses = []
    for item, sound in zip(path.maps, path.sounds, strict=True):
        item, sound = at_least_single(item).flatten(0, 1), at_least_single(sound).flatten(0, 1)
        size = item.shape[-2], item.shape[-1]
        share = F.adaptive_avg_pool2d(counted, size)
        marked = (F.adaptive_avg_pool2d(logits, size) / share.clamp(min=1e-6)).sigmoid() * share
        seen = (item * marked).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=1e-6)
        heard, seen = (F.normalize(vector, dim=1).log_softmax(dim=1) for vector in (sound, seen))
        each = F.kl_div(seen, heard, reduction="none", log_target=True).sum(dim=1)
        losses.append(torch.where(labelled, each, torch.zeros_like(each)).sum())
    return torch.stack(losses).mean()
