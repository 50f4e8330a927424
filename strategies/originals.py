"""Leaks and defects of each strategy's published code, with how each was found, for docs/strategies.md.

A leak is a hidden label that a query or its training reads. [run]: seen by running that code; [read]: by reading it.
OpenAL is the framework behind the tables of the VLPure-AL paper. This project has none of what stands here: a view of
the pool holds no hidden label, and what is done in its place stands under departures.
"""

from __future__ import annotations

_NOT_READ = "the original code was not read"
_HERDING = (
    "holds the matrix of all kernels, so that the pool is cut to 35,000 images, and builds that of the pool anew for "
    "every pick; the smallest labelled distance as the kernel's width, so that one near-duplicate turns the "
    "method into "
    "plain uncertainty [read]"
)
_MQNET = (
    "with predicted losses the pool is standardised by the mean and deviation of another measure, 1 - confidence; the "
    "labelled images' features are augmented ones; colours are jittered on images that are already normalised, "
    "and then "
    "clipped [read]. OpenAL: the encoder's batches are not shuffled, and so of one class in a data set that is read "
    "folder by folder; every round's meta-network has the same initial weights [read]"
)
_CLASSES_PINNED = "the ID classes are those of one fixed seed, whatever --seed says"
_NEAT = (
    "queried OOD images stay in the pool and can be bought again; the first 2 Q images of equal votes are those that "
    "the loader yields first, in the first round all of them; the query is shorter than Q if fewer images are known, "
    "and its precision is divided by Q all the same; the ID classes are pinned for each listed seed; a set is built "
    "inside the innermost loop [read]"
)
_VLPURE = "the query ends in an error if fewer images are judged ID than are due [read]"
_NONE_KNOWN = "none found"

DEFECTS: dict[str, str] = {
    "random": "OpenAL draws from the global generator, which each training starts anew: the query depends on how much "
    "randomness the training used [read]",
    "conf": "MQNet's baseline of this name ranks by the largest logit, not probability: its first 100 of 900 "
    "agree with "
    "the right ones to 83-91 % [run]; unstable sorts [read]",
    "margin": _NOT_READ,
    "entropy": "p ln p of a probability that rounds to 0 is NaN [read]",
    "ll": "the network is not started anew between rounds in the reproduction that others cite; MQNet's head "
    "for images "
    "of 224 pixels pools 55 x 55 of a 56 x 56 map, and there is none for 64 pixels; OpenAL keeps each activation twice "
    "[read]",
    "coreset": "OpenAL, the code behind the paper's row, is near-random: after each pick a row leaves the "
    "distances but "
    "not the list of images, so that later picks are other images than meant: 10 % of 500 picks are right, by chance "
    "10 %, and 22 of 500 are duplicates, so that it spends less than its budget [run]; roots of slightly negative "
    "numbers are NaN, and NaN is picked first [read]",
    "coreset-balanced": _NOT_READ,
    "bald": _NOT_READ,
    "meanstd": _NOT_READ,
    "varratio": _NOT_READ,
    "badge": _NOT_READ,
    "alphamix": _NOT_READ,
    "probcover": "once everything is covered an image may be picked twice; images of the last partial block of 500 "
    "have no balls, so none of them is ever picked [read]",
    "probcover-pretrained": "as probcover",
    "typiclust": _NONE_KNOWN + " in TypiClust [read]; the same repository's DCoM drops the last partial block of 700 "
    "images of its graph, and fails on NumPy from 1.24 on [read]",
    "uherding": _HERDING,
    "maxherding": _HERDING,
    "lfosa": "queried OOD images stay in the pool and can be bought again; the pool is scored with training "
    "augmentation; "
    "the order of its many posteriors of exactly 1 is that of an unstable sort [read]; posteriors differ "
    "between its own "
    "seeds by up to 0.04, once by 1.0 [run]",
    "eoal": "a batch without OOD or without ID images makes the loss NaN and ends the training [run]; fewer "
    "clusters than "
    "ID classes end it in an error [run]; the pool is scored with training augmentation; the centres are older "
    "than the "
    "features; " + _CLASSES_PINNED + " [read]. OpenAL: spends less than its budget if few images are predicted known, "
    "the rate is a thousandth from epoch 200 of 300 on, and one entropy is not normalised [read]",
    "e2oal": 'its "Jensen-Shannon" divergence is not: both arguments are exchanged, and p = (.5, .5, 0) scores '
    "31 times (.6, .3, .1) in place of 3.3 [run]; k-means has seed 0 in every seed; a batch without ID images is "
    "NaN [run]; the default of --query-strategy does not exist; spends less than its budget on small classes; "
    + _CLASSES_PINNED
    + " [read]",
    "e2oal-own": "as e2oal",
    "eaoa": "the query ends in an error if a class is predicted for few images, and otherwise spends less than its "
    "budget; energies overflow to infinity in float32 from a logit of 89 on [run]; a batch of one kind is NaN [run]; a "
    "class without labels is 0 / 0; labelled features come from the augmenting, shuffling loader; the mixtures are not "
    "seeded; " + _CLASSES_PINNED + " [read]",
    "bual": "**hidden labels are read**: the negative training stops when the number of truly known images "
    "among those it "
    "would pick stays the same, and its 5,000 unlabelled images are drawn in the true share of known ones; "
    "1,500 stands "
    "in place of --query_size; the ID classes are the first n; the pool is scored with training augmentation [read]",
    "poal": "no code was found",
    "mqnet": _MQNET,
    "mqnet-conf": _MQNET,
    "ccal": "a squashing that overflows in float32: the most OOD-like image of the pool becomes NaN and is asked first "
    "[run]; a class with one labelled image ends it in an error; too few candidates are filled up with images of other "
    "classes, possibly twice [read]. OpenAL: positions in the pool are taken for indices of images, so that others are "
    "bought than meant [read]",
    "neat": _NEAT,
    "neat-passive": _NEAT,
    "vlpure": _VLPURE,
    "vlpure-domain": _VLPURE,
}
"""By the strategy's name; those behind the purity step are under the strategy that they put there."""

LEFT_OUT = {
    "EB-OSAL (Lyu and Beksi 2026)": "not built: it learns nothing from the OOD images that were bought, and each query "
    "trains two networks for 200 epochs, with a pass over the whole pool in every epoch. Its code starts an unshuffled "
    "pool loader anew in each epoch, so that only as many batches of the pool as of labelled images are ever trained "
    "on; its fixed threshold of -23 can leave the query empty; the "
    "pool is scored with augmentation [read]",
    "PAL (Yang et al. 2023)": "not built: in the published code its weighting network never gets a gradient (it is set "
    "to zero, then a loss that does not depend on it goes back) and so stays random [read]. A version that does train "
    "it, written from the paper, could be checked against no code",
    "DCoM (2024)": "not built: see `typiclust`",
    "VLPure-adaptive (this project)": "tried and not kept, as it was not better than `vlpure`: "
    "[docs/results.md](results.md) has the rule and the figures",
}
"""Strategies that are not here, and why."""
