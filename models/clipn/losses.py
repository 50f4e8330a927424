"""Losses that train CLIP and CLIPN's "no" tower, for captions that several images may share.

Shapes: N images, M texts, D embedding.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def binary_opposite_loss(
    image_features_ND: torch.Tensor,
    yes_features_MD: torch.Tensor,
    no_features_MD: torch.Tensor,
    match_mask_NM: torch.Tensor,
    logit_scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two terms of the image-text binary-opposite loss (ITBO), scalars; both ln 2 if "no" equals "yes".

    For unit features and p_yes,ij = sigmoid(s (f_i.g_j - f_i.h_j)): the mean of -log p_yes over the pairs that match,
    and the mean of -log(1 - p_yes) over those that do not. `match_mask_NM` (bool) is the unit matrix for one caption
    per image, and "image i has class j" for captions of classes.

    Raises ValueError, on a CPU, if there is no matching or no other pair; on a GPU the loss is then not a number.
    """
    # With softplus, because the reference's log of a softmax can overflow.
    if not match_mask_NM.is_cuda and int(match_mask_NM.sum()) in (0, match_mask_NM.numel()):
        raise ValueError("the binary-opposite loss needs pairs that match and pairs that do not")
    margin_NM = logit_scale * (image_features_ND @ (yes_features_MD - no_features_MD).T)
    if match_mask_NM.is_cuda:
        return masked_mean(functional.softplus(-margin_NM), match_mask_NM), masked_mean(
            functional.softplus(margin_NM), ~match_mask_NM
        )
    matches = functional.softplus(-margin_NM[match_mask_NM]).mean()
    others = functional.softplus(margin_NM[~match_mask_NM]).mean()
    return matches, others


def semantic_opposite_loss(yes_features_MD: torch.Tensor, no_features_MD: torch.Tensor) -> torch.Tensor:
    """The text semantic-opposite loss (TSO), a scalar in [0, 2]: 0 if each "no" feature is minus its "yes"."""
    cosines_M = (yes_features_MD * no_features_MD).sum(dim=1)
    return (2 - (2 - 2 * cosines_M + 1e-4).sqrt()).mean()


def contrastive_loss(
    image_features_ND: torch.Tensor, text_features_MD: torch.Tensor, labels_N: torch.Tensor, logit_scale: float
) -> torch.Tensor:
    """CLIP's loss, a scalar, for images against one text per class: image i belongs to text `labels_N[i]`.

    The mean of both directions; from text to image, texts without an image are omitted and a text's images share its
    term equally.
    """
    logits_NM = logit_scale * image_features_ND @ text_features_MD.T
    image_to_text = functional.cross_entropy(logits_NM, labels_N)
    match_NM = functional.one_hot(labels_N, text_features_MD.shape[0]).to(logits_NM.dtype)
    counts_M = match_NM.sum(dim=0)
    present_mask = counts_M > 0
    log_probs_M = (logits_NM.log_softmax(dim=0) * match_NM).sum(dim=0)
    if log_probs_M.is_cuda:
        text_to_image = -masked_mean(log_probs_M / counts_M.clamp(min=1), present_mask)
    else:
        text_to_image = -(log_probs_M[present_mask] / counts_M[present_mask]).mean()
    return (image_to_text + text_to_image) / 2


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean () of the finite `values` whose `mask` is True, without waiting for a GPU to count them."""
    # Only for a GPU: on a CPU the losses select the values instead, whose sum is rounded in another order.
    return torch.where(mask, values, 0.0).sum() / mask.sum()
