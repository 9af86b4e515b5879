"""Colour: stain amounts to RGB by Beer–Lambert, with a shift per patient. In: (2, h, w) optical density. Out: uint8."""

from dataclasses import dataclass

import numpy as np

# absorbance of red, green and blue by one unit of stain; typical of scanned H&E slides
HAEMATOXYLIN_RGB = (0.66, 0.74, 0.38)
EOSIN_RGB = (0.12, 0.80, 0.50)

# h, w rows and columns


@dataclass(frozen=True)
class Stain:
    """One laboratory's staining: absorbance (2, 3) of haematoxylin and eosin, and the glass (3,), 0 to 255."""

    absorbance: np.ndarray
    glass: np.ndarray

    def to_rgb(self, amounts: np.ndarray) -> np.ndarray:
        """Colours (h, w, 3) uint8 of stain amounts (2, h, w)."""
        rgb = np.empty((*amounts.shape[1:], 3), np.uint8)
        for channel in range(3):
            density = amounts[0] * self.absorbance[0, channel] + amounts[1] * self.absorbance[1, channel]
            np.multiply(np.exp(-density), self.glass[channel], out=rgb[..., channel], casting="unsafe")
        return rgb


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw a patient's staining: both stains' strength, their hue, and the white of the glass."""
    absorbance = np.array([HAEMATOXYLIN_RGB, EOSIN_RGB])
    strength = np.exp(rng.normal(0, 0.13, (2, 1)))
    hue = np.exp(rng.normal(0, 0.08, (2, 3)))
    glass = 243 + rng.uniform(-5, 5) + rng.uniform(-2, 2, 3)
    return Stain((absorbance * strength * hue).astype(np.float32), glass.astype(np.float32))
