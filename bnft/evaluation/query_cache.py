"""A cache of the model's outputs for Square Attack, which often evaluates the same image again."""

from collections.abc import Callable

import torch

Model = Callable[[torch.Tensor], torch.Tensor]

FEW_PIXELS = 256  # on images up to this size, Square Attack repeats itself, as it finally changes single pixels
MEMORY = 2**27  # bytes of images in the cache
STEP = 16  # batch sizes are multiples of it, because libraries for CPUs initialise themselves for every new size


class CachedModel:
    """A model without gradients that computes the logits of each image once, and then returns them from memory."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._places: dict[bytes, int] = {}
        self._answers = torch.empty(0)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        data, size = images.contiguous().numpy().tobytes(), images[0].numel() * images.element_size()
        keys = [data[begin : begin + size] for begin in range(0, len(data), size)]
        if (len(self._places) + len(keys)) * size > MEMORY:
            self._places, self._answers = {}, self._answers[:0]
        missing = [place for place, key in enumerate(keys) if key not in self._places]
        if missing:
            padded = missing + missing[:1] * (-len(missing) % STEP if len(missing) > STEP else 0)
            with torch.no_grad():
                self._learn([keys[place] for place in missing], self.model(images[padded])[: len(missing)])
        return self._answers[[self._places[key] for key in keys]]

    def _learn(self, keys: list[bytes], answers: torch.Tensor) -> None:
        known = len(self._places)
        if known + len(keys) > len(self._answers):
            more = answers.new_empty(len(self._answers) + 16 * len(keys), answers.shape[1])
            self._answers = torch.cat([self._answers.to(more.dtype).view(-1, answers.shape[1]), more])
        self._answers[known : known + len(keys)] = answers
        self._places.update(zip(keys, range(known, known + len(keys)), strict=True))


def cached(model: Model, images: torch.Tensor) -> Model:
    """Return a model for Square Attack on images (N, C, H, W): with a cache if this is faster, else `model` itself."""
    worth = images.device.type == "cpu" and images.shape[-2] * images.shape[-1] <= FEW_PIXELS
    return CachedModel(model) if worth else model
