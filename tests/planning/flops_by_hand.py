"""FLOPs of the encoders counted by hand from their published layer shapes."""


def taps(size, window, stride):
    """Returns the multiplications along one axis, and the size of the output.

    Only taps inside the input count; it is padded by half the window.
    """
    out = -(-size // stride)
    inside = 0
    for i in range(out):
        first = i * stride - window // 2
        inside += sum(0 <= first + j < size for j in range(window))
    return inside, out


def convolution(sizes, windows, strides, channels_in, channels_out):
    """Returns FLOPs of a convolution of one clip, two per multiplication; new sizes."""
    flops, new_sizes = 2 * channels_in * channels_out, []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        inside, out = taps(size, window, stride)
        flops *= inside
        new_sizes.append(out)
    return flops, new_sizes


def r2plus1d(frames, crop, width, blocks):
    """Returns FLOPs of R(2+1)D's convolutions: of all, and of the first one alone."""

    def factored(sizes, c_in, c_mid, c_out, window, stride_space, stride_time):
        space = ((1, window, window), (1, stride_space, stride_space))
        first, sizes = convolution(sizes, *space, c_in, c_mid)
        second, sizes = convolution(sizes, (3, 1, 1), (stride_time, 1, 1), c_mid, c_out)
        return first, second, sizes

    def mid(c_in, c_out):
        return (c_in * c_out * 27) // (c_in * 9 + 3 * c_out)

    sizes = [frames, crop, crop]
    stem, second, sizes = factored(sizes, 3, 45 * width // 64, width, 7, 2, 1)
    total, c_in = stem + second, width
    for stage, count in enumerate(blocks):
        c_out = width * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            if stride > 1 or c_in != c_out:
                total += convolution(sizes, (1, 1, 1), (stride,) * 3, c_in, c_out)[0]
            for c, s in ((c_in, stride), (c_out, 1)):
                *flops, sizes = factored(sizes, c, mid(c, c_out), c_out, 3, s, s)
                total += sum(flops)
            c_in = c_out
    return total, stem


def audio_resnet(mel_frames, mels, width, blocks):
    """As `r2plus1d`, of the audio ResNet."""
    stem, sizes = convolution([mel_frames, mels], (7, 7), (2, 2), 1, width)
    total, c_in = stem, width
    for stage, count in enumerate(blocks):
        c_out = width * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            if stride > 1 or c_in != c_out:
                total += convolution(sizes, (1, 1), (stride,) * 2, c_in, c_out)[0]
            for c, s in ((c_in, stride), (c_out, 1)):
                flops, sizes = convolution(sizes, (3, 3), (s, s), c, c_out)
                total += flops
            c_in = c_out
    return total, stem


def training_step(*encoders):
    """Returns FLOPs of a step per clip: forward, and both gradients of each product.

    The stems need no gradient of their input.
    """
    return sum(3 * total - stem for total, stem in encoders)
