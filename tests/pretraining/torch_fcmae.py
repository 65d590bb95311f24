"""FCMAE in PyTorch, written for the tests: every block computes one visible position at a time.

Nothing is masked: positions that are hidden do not exist here, as with sparse convolutions.
"""

import torch
from torch.nn import functional as F


def layer_norm(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}/gamma"], weights[f"{name}/beta"], 1e-6)


def dense(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def response_norm(x, weights, name):
    """Algorithm 1, for the rows (P, C) of the visible positions of one image."""
    norms = x.square().sum(0).sqrt()
    return (
        x
        + weights[f"{name}/gamma"] * (x * (norms / (norms.mean() + 1e-6)))
        + weights[f"{name}/beta"]
    )


def mlp(x, weights, name):
    x = layer_norm(x, weights, f"{name}/norm")
    x = F.gelu(dense(x, weights, f"{name}/pwconv1"))
    return dense(response_norm(x, weights, f"{name}/grn"), weights, f"{name}/pwconv2")


def sparse_block(features, weights, name):
    """Applies a block to a dict from visible positions (row, column) to features (C,)."""
    kernel, bias = weights[f"{name}/dwconv/kernel"], weights[f"{name}/dwconv/bias"]
    reach = kernel.shape[0] // 2
    rows = []
    for row, column in features:
        total = bias
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                neighbor = features.get((row + down, column + right))
                if neighbor is not None:
                    total = total + kernel[down + reach, right + reach, :, 0] * neighbor
        rows.append(total)
    branch = mlp(torch.stack(rows), weights, name)
    return {place: x + y for (place, x), y in zip(features.items(), branch)}


def encode(image, hidden, weights, depths, patch_size):
    """Encodes one normalized image (H, W, 3), of which `hidden` (h, w) cells do not exist."""
    stride = patch_size * 2 ** (len(depths) - 1)
    kernel, bias = weights["stem_conv/kernel"], weights["stem_conv/bias"]
    features = {}
    for row in range(image.shape[0] // patch_size):
        for column in range(image.shape[1] // patch_size):
            if hidden[row * patch_size // stride, column * patch_size // stride]:
                continue
            patch = image[row * patch_size : (row + 1) * patch_size,
                          column * patch_size : (column + 1) * patch_size]  # fmt: skip
            x = torch.einsum("hwc,hwcd->d", patch, kernel) + bias
            features[row, column] = layer_norm(x, weights, "stem_norm")
    for stage, depth in enumerate(depths):
        if stage:
            kernel, bias = (weights[f"downsample_{stage}_conv/{w}"] for w in ("kernel", "bias"))
            coarse = {}
            for row, column in features:
                place = row // 2, column // 2
                x = layer_norm(features[row, column], weights, f"downsample_{stage}_norm")
                coarse[place] = coarse.get(place, bias) + x @ kernel[row % 2, column % 2]
            features = coarse
        for block in range(depth):
            features = sparse_block(features, weights, f"stages_{stage}_blocks_{block}")
    return features


def dense_block(x, weights, name):
    """A block of ConvNeXt V2 on a whole map (h, w, C)."""
    kernel = weights[f"{name}/dwconv/kernel"].permute(2, 3, 0, 1)
    y = F.conv2d(x.permute(2, 0, 1)[None], kernel, weights[f"{name}/dwconv/bias"],
                 padding=kernel.shape[-1] // 2, groups=len(kernel))[0].permute(1, 2, 0)  # fmt: skip
    return x + mlp(y.reshape(-1, y.shape[-1]), weights, name).reshape(x.shape)


def predict(image, hidden, weights, depths, patch_size, decoder_depth):
    """Predicts the patches (h, w, D) of one image."""
    features = encode(image, hidden, weights, depths, patch_size)
    rows = []
    for row in range(hidden.shape[0]):
        for column in range(hidden.shape[1]):
            x = features.get((row, column))
            rows.append(
                weights["decoder_mask/token"] if x is None
                else dense(x, weights, "decoder_projection")
            )  # fmt: skip
    x = torch.stack(rows).reshape(*hidden.shape, -1)
    for block in range(decoder_depth):
        x = dense_block(x, weights, f"decoder_{block}")
    return dense(x, weights, "decoder_pixels")


def loss(images, hidden, weights, depths, patch_size, decoder_depth, mean, std):
    """The loss of a batch: images (N, H, W, 3) in 0..255, hidden (N, h, w)."""
    total, count = 0.0, 0
    for pixels, mask in zip(images, hidden):
        image = (pixels / 255 - mean) / std
        predicted = predict(image, mask, weights, depths, patch_size, decoder_depth)
        side = image.shape[0] // mask.shape[0]
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                if mask[row, column]:
                    patch = image[row * side : (row + 1) * side,
                                  column * side : (column + 1) * side].reshape(-1)  # fmt: skip
                    target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
                    total = total + (predicted[row, column] - target).square().mean()
                    count += 1
    return total / count
