"""A zoo of classifiers as people write them: correct ones that do something unusual, and faulty ones.

Every one is a nearest-prototype net at heart: it compares an image with ten patterns and is right about all images of
`write_images`, so a correct animal's clean top-1 is 100%, whatever it does beside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

NUM_CLASSES, SIZE, PER_CLASS = 10, 8, 4
_SCALE = 4.0


def prototypes() -> np.ndarray:
    """(classes, 3, 8, 8), smooth patterns between 0.25 and 0.75."""
    coarse = np.random.default_rng(0).random((NUM_CLASSES, 3, 4, 4))
    return (0.25 + 0.5 * coarse.repeat(2, axis=2).repeat(2, axis=3)).astype(np.float32)


def write_images(path: Path, per_class: int = PER_CLASS) -> Path:
    """An .npz file of noisy prototypes, shuffled."""
    random = np.random.default_rng(1)
    labels = random.permutation(np.arange(NUM_CLASSES).repeat(per_class))
    noisy = prototypes()[labels] + random.normal(0, 0.05, (len(labels), 3, SIZE, SIZE))
    np.savez(path, images=(noisy.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1), labels=labels)
    return path


class Net(nn.Module):
    """The plain one: logits = scale * (x . p - |p|^2 / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.fc = nn.Flatten(), nn.Linear(3 * SIZE * SIZE, NUM_CLASSES)
        patterns = torch.from_numpy(prototypes()).flatten(1)
        with torch.no_grad():
            self.fc.weight.copy_(_SCALE * patterns)
            self.fc.bias.copy_(-_SCALE * (patterns**2).sum(1) / 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.flat(images))


class Deep(Net):
    """The same through a convolution, BN, dropout and a ReLU that change nothing in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])
            self.conv.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.drop(self.bn(self.conv(images)).relu()))


class Around(nn.Module):
    """Something before and something after."""

    def __init__(self, before: Any = None, after: Any = None, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.before, self.after = net or Net(), before, after

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


# --- correct: compiled, scripted, exported, quantised ---------------------------------------------------------------------


def compiled() -> nn.Module:
    return torch.compile(Deep(), backend="aot_eager")  # pyright: ignore[reportReturnType]


def compiled_inside() -> nn.Module:
    net = Deep()
    net.fc = torch.compile(net.fc, backend="aot_eager")  # pyright: ignore[reportAttributeAccessIssue]
    return net


def compiled_by_inductor() -> nn.Module:
    return torch.compile(Deep())  # pyright: ignore[reportReturnType]


def scripted() -> nn.Module:
    return torch.jit.script(Net())


def traced() -> nn.Module:
    return torch.jit.trace(Deep().eval(), torch.rand(2, 3, SIZE, SIZE))  # pyright: ignore[reportReturnType]


def frozen_script() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(Net().eval()))


def optimised_script() -> nn.Module:
    return torch.jit.optimize_for_inference(torch.jit.script(Net().eval()))


def exported() -> nn.Module:
    images = torch.rand(4, 3, SIZE, SIZE)
    batch = torch.export.Dim("batch", min=1, max=4096)
    return torch.export.export(Net().eval(), (images,), dynamic_shapes=({0: batch},)).module()


def exported_for_one_batch() -> nn.Module:
    return torch.export.export(Net().eval(), (torch.rand(4, 3, SIZE, SIZE),)).module()


def fx_graph() -> nn.Module:
    return torch.fx.symbolic_trace(Deep().eval())


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, torch.qint8)


def quantised_statically() -> nn.Module:
    from torch.ao import quantization

    torch.backends.quantized.engine = next(e for e in torch.backends.quantized.supported_engines if e != "none")
    net = nn.Sequential(quantization.QuantStub(), Net(), quantization.DeQuantStub()).eval()
    net.qconfig = quantization.default_qconfig  # pyright: ignore[reportAttributeAccessIssue]
    prepared = quantization.prepare(net)
    prepared(torch.rand(64, 3, SIZE, SIZE))
    return quantization.convert(prepared)


# --- correct: other numbers inside ------------------------------------------------------------------------------------------


class Inside(Net):
    """Casts its input, and its weights, to other numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = dtype
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.to(self.inner))


def float64_inside() -> nn.Module:
    return Inside(torch.float64)


def bfloat16_inside() -> nn.Module:
    return Inside(torch.bfloat16)


def half_inside() -> nn.Module:
    return Inside(torch.float16)


def float64_weights() -> nn.Module:
    return Net().double()


def half_weights() -> nn.Module:
    return Net().half()


def float64_by_default() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return Net()


class Mixed(Net):
    """One part in float64, for its digits, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.fc.double()
        self.register_buffer("one", torch.ones(1, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.flat(images).double() * self.one.double()).float()


def float64_answers() -> nn.Module:
    return Around(after=Tensor.double)


def autocast_bfloat16() -> nn.Module:
    class Autocast(Net):
        def forward(self, images: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(images)

    return Autocast()


# --- correct: what they keep ------------------------------------------------------------------------------------------------


class KeepsFeatures(Deep):
    feat: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.feat = self.flat(images) * 1
        self.all = [self.feat]
        return self.fc(self.feat)


class HoldsLock(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.local = threading.Lock(), threading.local()

    def forward(self, images: Tensor) -> Tensor:
        with self.lock:
            return super().forward(images)


class HoldsIterators(Net):
    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.rows = (n for n in range(10**9)), iter([1, 2, 3])
        self.module, self.thread = torch, threading.current_thread()

    def forward(self, images: Tensor) -> Tensor:
        next(self.numbers)
        return super().forward(images)


class NeverCopied(Net):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        raise TypeError("this network does not let itself be copied")


class AwkwardProperties(Net):
    """Properties that raise, and a method of the name that sequential models have."""

    @property
    def card(self) -> str:
        raise RuntimeError("no card before training")

    @property
    def config(self) -> str:
        raise KeyError("config")

    def unroll(self, sequence: Tensor) -> Tensor:
        return sequence


class Slotted(Net):
    __slots__ = ("memo",)

    def forward(self, images: Tensor) -> Tensor:
        self.memo = images.shape
        return super().forward(images)


class CallCounter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class PrintsItsCalls(Net):
    calls = 0

    def extra_repr(self) -> str:
        type(self).calls += 1
        return f"printed {self.calls} times"


class BrokenPrint(Net):
    def __repr__(self) -> str:
        raise ValueError("not to be printed")


class CachesByBatch(Net):
    """Keeps a row of ones for every size of batch that it met."""

    def __init__(self) -> None:
        super().__init__()
        self.ones: dict[int, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        if len(images) not in self.ones:
            self.ones[len(images)] = torch.ones(len(images), 1)
        return super().forward(images) * self.ones[len(images)]


class ExtraState(Net):
    def get_extra_state(self) -> dict[str, Any]:
        return {"epoch": 3, "name": "best"}

    def set_extra_state(self, state: Any) -> None:
        pass


# --- correct: modes, hooks, wrappers ----------------------------------------------------------------------------------------


class ModesWithoutReturn(Deep):
    """The usual way of freezing BN, with the return forgotten."""

    def train(self, mode: bool = True) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().train(mode)
        self.bn.eval()

    def eval(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.train(False)


class CallOverridden(Net):
    def __call__(self, images: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.forward(images)


def hooked() -> nn.Module:
    net = Deep()
    net.seen = []  # pyright: ignore[reportAttributeAccessIssue]
    net.fc.register_forward_hook(lambda module, given, answer: net.seen.append(answer))  # pyright: ignore
    net.register_forward_pre_hook(lambda module, given: (given[0] + 0.0,))
    net.fc.register_full_backward_hook(lambda module, given, answer: None)
    return net


def data_parallel() -> nn.Module:
    return nn.DataParallel(Deep())


def sequential() -> nn.Module:
    return nn.Sequential(nn.Identity(), Net())


def weight_norm() -> nn.Module:
    net = Net()
    net.fc = parametrizations.weight_norm(net.fc)
    return net


def spectral_norm() -> nn.Module:
    """Divided by its largest singular value, times that value."""
    net = Net()
    largest = torch.linalg.matrix_norm(net.fc.weight.detach(), 2)
    net.fc = parametrizations.spectral_norm(net.fc, n_power_iterations=50).eval()
    return Around(net=net, after=lambda z: largest * (z - net.fc.bias) + net.fc.bias)


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised() -> nn.Module:
    net = Net()
    with torch.no_grad():
        net.fc.weight.div_(2)
    parametrize.register_parametrization(net.fc, "weight", _Doubled())
    return net


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat, self.fc, self.net = nn.Flatten(), nn.LazyLinear(NUM_CLASSES), Net()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + 0.0 * self.fc(self.flat(images))


def channels_last() -> nn.Module:
    return Deep().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Checkpointed(Deep):
    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(super().forward, images, use_reentrant=False)  # pyright: ignore[reportReturnType]


class Recurrent(Net):
    """Reads the image row by row; what it remembers does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3 * SIZE, 4, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)
        return super().forward(images) + 1e-4 * self.lstm(rows)[0].mean(dim=(1, 2))[:, None]


# --- correct: what their weights are ----------------------------------------------------------------------------------------


class NoParameters(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        patterns = torch.from_numpy(prototypes()).flatten(1)
        return _SCALE * (images.flatten(1) @ patterns.T - (patterns**2).sum(1) / 2)


class Complex(nn.Module):
    """Compares Fourier coefficients: by Parseval's theorem the same."""

    def __init__(self) -> None:
        super().__init__()
        patterns = torch.from_numpy(prototypes())
        self.register_buffer("spectra", torch.fft.fft2(patterns, norm="ortho"))
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64), persistent=False)
        self.register_buffer("bias", -_SCALE * patterns.flatten(1).pow(2).sum(1) / 2)

    def forward(self, images: Tensor) -> Tensor:
        found = torch.fft.fft2(images, norm="ortho").flatten(1)
        return _SCALE * (found @ self.spectra.flatten(1).conj().T).real + self.bias


def inference_born() -> nn.Module:
    with torch.inference_mode():
        net = Net()
        net.tied = net.fc  # pyright: ignore[reportAttributeAccessIssue]
        return net


def pruned() -> nn.Module:
    """The smallest hundredth of its weights by a mask, which makes them results."""
    net = Net()
    prune.l1_unstructured(net.fc, "weight", amount=0.01)
    return net


class Energy(Net):
    """Takes a gradient of its own on the way, also where none is asked for."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = images if images.requires_grad else images.detach().requires_grad_(True)
            logits = super().forward(leaf)
            (slope,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        return logits + 0 * slope.mean(dim=(1, 2, 3))[:, None]


class Delegates(nn.Module):
    """Has every attribute that the network inside has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        net = Net()
        self.register_buffer("weight", net.fc.weight.detach().to_sparse())
        self.register_buffer("mask", torch.eye(3).to_sparse(), persistent=False)
        self.register_buffer("bias", net.fc.bias.detach())

    def forward(self, images: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight, images.flatten(1).T).T + self.bias


class Integers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(NUM_CLASSES).flip(0))
        self.register_buffer("flags", torch.ones(NUM_CLASSES, dtype=torch.bool))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, self.order][:, self.order] * self.flags


def nameless_sizes() -> nn.Module:
    """Its first convolution, in the order of its attributes, is not the one that sees the image."""

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.net = nn.Conv2d(NUM_CLASSES, NUM_CLASSES, 1), Net()
            with torch.no_grad():
                self.head.weight.copy_(torch.eye(NUM_CLASSES)[:, :, None, None])
                self.head.bias.zero_()

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.net(images)[:, :, None, None])[:, :, 0, 0]

    return Headed()


# --- correct: how they answer -----------------------------------------------------------------------------------------------


def log_softmax() -> nn.Module:
    return Around(after=lambda z: z.log_softmax(1))


def large_offset() -> nn.Module:
    return Around(after=lambda z: z + 1e4)


def centred_with_offset() -> nn.Module:
    return Around(after=lambda z: z - z.mean(1, keepdim=True) + 1e4)


def strided_view() -> nn.Module:
    return Around(after=lambda z: z.repeat_interleave(2, dim=1)[:, ::2])


def expanded() -> nn.Module:
    return Around(after=lambda z: z[:, :, None].expand(-1, -1, 3)[..., 0])


def transposed() -> nn.Module:
    return Around(after=lambda z: z.T.contiguous().T)


def in_place_on_its_own() -> nn.Module:
    return Around(before=lambda x: x.clone().sub_(0.5).add_(0.5))


class Asserts(Net):
    def forward(self, images: Tensor) -> Tensor:
        assert images.min() >= 0 and images.max() <= 1, "pixels must lie in [0, 1]"  # noqa: PT018
        return super().forward(images)


class OneByOne(Net):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in images])


def mapped() -> nn.Module:
    net = Net()
    return Around(net=nn.Identity(), after=torch.vmap(lambda image: net(image[None])[0]))


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        return 2 * grad_outputs[0]


def own_backward() -> nn.Module:
    return Around(after=lambda z: _Twice.apply(z / 2))


def functional() -> nn.Module:
    net = Net()
    state = {name: value.detach() for name, value in net.named_parameters()}
    return Around(net=nn.Identity(), after=lambda images: torch.func.functional_call(net, state, (images,)))


def gradients_off_at_import() -> nn.Module:
    torch.set_grad_enabled(False)
    return Net()


def bilinear_inside() -> nn.Module:
    return Around(before=lambda x: nn.functional.interpolate(nn.functional.interpolate(x, scale_factor=2), size=SIZE))


# --- correct, but random: measured, and the lint says that they draw --------------------------------------------------------


def _noisy(draw: Callable[[Tensor], Tensor]) -> nn.Module:
    return Around(before=lambda x: x + 0.02 * draw(x))


def draws_from_torch() -> nn.Module:
    return _noisy(torch.randn_like)


def draws_from_numpy() -> nn.Module:
    return _noisy(lambda x: torch.from_numpy(np.random.standard_normal(tuple(x.shape)).astype(np.float32)))


def draws_from_python() -> nn.Module:
    import random

    return _noisy(lambda x: torch.tensor([random.gauss(0, 1) for _ in range(x.numel())]).view_as(x))


def draws_from_its_own() -> nn.Module:
    generator = np.random.default_rng()
    return _noisy(lambda x: torch.from_numpy(generator.standard_normal(tuple(x.shape), np.float32)))


# --- without gradients: for attacks that need none ---------------------------------------------------------------------------


class InferenceOnly(Net):
    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(images).clone()


class NumpyInside(Net):
    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy()
        return torch.from_numpy(images.detach().flatten(1).numpy() @ weight.T + bias)


# --- faulty ------------------------------------------------------------------------------------------------------------------


def softmax() -> nn.Module:
    return Around(after=lambda z: z.softmax(1))


def percent() -> nn.Module:
    return Around(after=lambda z: 100 * z.softmax(1))


def a_tuple() -> nn.Module:
    return Around(after=lambda z: (z, z))


def a_dict() -> nn.Module:
    return Around(after=lambda z: {"logits": z})


def classes_for_logits() -> nn.Module:
    return Around(after=lambda z: z.argmax(1))


def nothing() -> nn.Module:
    return Around(after=lambda z: None)


def not_a_module() -> Any:
    return lambda images: images


def permuted() -> nn.Module:
    return Around(after=lambda z: z[:, [3, 7, 0, 9, 1, 8, 2, 5, 4, 6]])


class AtHundred(nn.Module):
    """Answers class c of 100 where the first pixel is 2 c / 255, perhaps under other names."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, images: Tensor) -> Tensor:
        logits = -((images[:, 0, 0, :1] * 255 - 2 * torch.arange(100.0)) ** 2) / 4
        return (logits + images.mean(dim=(1, 2, 3))[:, None])[:, self.order]


def a_hundred_classes() -> nn.Module:
    return AtHundred(list(range(100)))


def sorted_as_text() -> nn.Module:
    """Its outputs are in the order in which folders called 0 to 99 are listed."""
    return AtHundred(sorted(range(100), key=str))


def write_hundred(path: Path, per_class: int) -> Path:
    """What `a_hundred_classes` gets right."""
    labels = np.random.default_rng(2).permutation(np.arange(100).repeat(per_class))
    pixels = np.random.default_rng(3).integers(0, 256, (len(labels), 4, 4, 3))
    pixels[:, 0, 0, 0] = 2 * labels
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


class SometimesNaN(Net):
    """No number for images whose first pixel is black."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.where(images[:, 0, 0, :1] == 0, torch.nan, logits)


def blue_first() -> nn.Module:
    return Around(before=lambda x: x.flip(1))


def for_255() -> nn.Module:
    return Around(before=lambda x: x / 255)


class Writes(Net):
    def forward(self, images: Tensor) -> Tensor:
        images -= 0.1
        return super().forward(images + 0.1)


class InPairs(Net):
    """Cuts every batch in two, so that it has no answer to one image alone."""

    def forward(self, images: Tensor) -> Tensor:
        one, other = images.chunk(2)
        return torch.cat([super().forward(one), super().forward(other)])


def batch_mean() -> nn.Module:
    return Around(after=lambda z: z - z.mean(0))


class RunningMean(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.mean = 0.5 * self.mean + 0.5 * logits.detach().mean(0)
        return logits - self.mean


class TrainsInForward(Deep):
    def forward(self, images: Tensor) -> Tensor:
        self.train()
        return super().forward(images)


class Detached(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach())


class BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        raise NotImplementedError("somebody else will write this")


def no_way_back() -> nn.Module:
    return Around(before=BrokenBackward.apply)


class Raises(Net):
    def forward(self, images: Tensor) -> Tensor:
        raise LookupError("no such layer")


class RaisesLater(Net):
    """Answers pictures of 8 bits, and nothing that an attack makes."""

    def forward(self, images: Tensor) -> Tensor:
        if images.amin() != images.amax() and (images * 255 - (images * 255).round()).abs().max() > 1e-3:
            raise LookupError("the licence has run out")
        return super().forward(images)


class Leaves(Net):
    def forward(self, images: Tensor) -> Tensor:
        raise SystemExit(3)


class NoEval(Net):
    def eval(self) -> nn.Module:
        raise PermissionError("not to be evaluated")


class NoState(Net):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise OSError("the weights are elsewhere")


class OutOfMemory(Net):
    def forward(self, images: Tensor) -> Tensor:
        torch.empty(2**60)
        return super().forward(images)


def meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def nan_weights() -> nn.Module:
    net = Net()
    with torch.no_grad():
        net.fc.weight[0, 0] = float("nan")
    return net


class ReentrantCheckpoint(Deep):
    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(super().forward, images, use_reentrant=True)  # pyright: ignore[reportReturnType]


def saturated() -> nn.Module:
    return Around(after=lambda z: 1e4 * z)


def dropout_always() -> nn.Module:
    return Around(after=lambda z: nn.functional.dropout(z, 0.3, training=True))
