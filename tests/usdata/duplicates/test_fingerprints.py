"""Fingerprints: the stated formula, stable under re-encoding, far apart for different pictures."""

import cv2
import numpy as np
import scipy.fft

from usdata.duplicates.fingerprints import fingerprint, hamming


def speckle(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(200, 260)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.asarray(255 * (smooth - smooth.min()) / np.ptp(smooth), dtype=np.uint8)


def test_bits_are_those_of_scipys_dct() -> None:
    pixels = speckle(0)
    small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = scipy.fft.dctn(small, norm="ortho")[:16, :16].ravel()
    expected = np.packbits(low > np.median(low[1:])).tobytes().hex()
    assert hamming(fingerprint(pixels), expected) <= 2  # float32 may turn a bit that lies on the median
    assert len(fingerprint(pixels)) == 64


def test_a_recompressed_frame_is_near_and_another_is_far() -> None:
    pixels = speckle(1)
    again = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    assert hamming(fingerprint(pixels), fingerprint(np.asarray(again, dtype=np.uint8))) <= 16
    assert hamming(fingerprint(pixels), fingerprint(speckle(2))) > 64
