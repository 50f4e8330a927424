"""Numbers of images and classes of the published data sets, for use without their files."""

from __future__ import annotations

from dataclasses import dataclass

from data.sources.domainnet_lists import FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Counts of a data set as its authors give them."""

    image_size: int
    """Height and width in pixels as the networks see it; DomainNet's images have any size and are decoded to this."""
    num_classes: int
    num_train: int
    num_test: int

    def class_sizes(self) -> list[int]:
        """Training images of each class, for data sets whose classes are equally large (CIFAR and Tiny-ImageNet)."""
        each, left = divmod(self.num_train, self.num_classes)
        assert not left, "this data set's classes are not equally large"
        return [each] * self.num_classes


# CIFAR: A. Krizhevsky 2009. Tiny-ImageNet: Stanford CS231n; its test images are the published validation images.
PUBLISHED = {
    "cifar10": Published(image_size=32, num_classes=10, num_train=50_000, num_test=10_000),
    "cifar100": Published(image_size=32, num_classes=100, num_train=50_000, num_test=10_000),
    "tiny-imagenet": Published(image_size=64, num_classes=200, num_train=100_000, num_test=10_000),
    # Lines of the published lists (cleaned version of 2019): 586,575 images together.
    **{
        f"{FOLDER}-{domain}": Published(image_size=224, num_classes=345, num_train=num_train, num_test=num_test)
        for domain, num_train, num_test in (
            ("real", 120_906, 52_041),
            ("clipart", 33_525, 14_604),
            ("infograph", 36_023, 15_582),
            ("painting", 50_416, 21_850),
            ("sketch", 48_212, 20_916),
            ("quickdraw", 120_750, 51_750),
        )
    },
}
