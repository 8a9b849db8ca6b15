"""Alpha158 from its formulas, window by window, in long double, calling nothing of the package."""

import numpy as np

WINDOWS = (5, 10, 20, 30, 60)
L = np.longdouble
EPS = L(1e-12)


def std(x):
    return np.sqrt(((x - x.mean()) ** 2).sum() / (len(x) - 1))


def correlation(x, y):
    if len(set(x)) == 1 or len(set(y)) == 1:
        return L(0)
    a, b = x - x.mean(), y - y.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def quantile(x, numerator, denominator):
    x, steps = np.sort(x), (len(x) - 1) * numerator
    k, part = steps // denominator, L(steps % denominator) / denominator
    return x[k] + part * (x[k + 1] - x[k]) if part else x[k]


def alpha158_at(bars, t, windows=WINDOWS):
    """All values at bar t, at least the longest window, as a dict of long doubles."""
    o, h, l, c, v = (
        np.asarray(bars[name][: t + 1], L) for name in ("open", "high", "low", "close", "volume")
    )
    O, H, Lo, C = o[-1], h[-1], l[-1], c[-1]
    span, top, foot = H - Lo + EPS, H - max(O, C), min(O, C) - Lo
    found = {
        "KMID": (C - O) / O, "KLEN": (H - Lo) / O, "KMID2": (C - O) / span,
        "KUP": top / O, "KUP2": top / span, "KLOW": foot / O, "KLOW2": foot / span,
        "KSFT": (2 * C - H - Lo) / O, "KSFT2": (2 * C - H - Lo) / span,
        "OPEN0": O / C, "HIGH0": H / C, "LOW0": Lo / C, "VWAP0": (H + Lo + C) / 3 / C,
    }  # fmt: skip
    for d in windows:
        found |= {f"{name}{d}": value for name, value in window(h, l, c, v, d).items()}
    return found


def window(h, l, c, v, d):
    C, V = c[-1], v[-1]
    x, hi, lo, vol = c[-d:], h[-d:], l[-d:], v[-d:]
    numbers = np.arange(1, d + 1).astype(L)
    apart = numbers - numbers.mean()
    squares, joint = ((x - x.mean()) ** 2).sum(), (apart * (x - x.mean())).sum()
    slope = joint / (apart * apart).sum()
    before, v_before = c[-d - 1 : -1], v[-d - 1 : -1]
    grown = np.where(v_before > 0, vol / np.where(v_before > 0, v_before, 1), 0)
    rises, v_rises, moved = x - before, vol - v_before, abs(x / before - 1) * vol
    found = {
        "ROC": before[0] / C, "MA": x.mean() / C, "STD": std(x) / C, "BETA": slope / C,
        "RSQR": joint**2 / ((apart * apart).sum() * squares) if squares > 0 else L(0),
        "RESI": (C - (x.mean() + slope * (d - numbers.mean()))) / C,
        "MAX": hi.max() / C, "MIN": lo.min() / C,
        "QTLU": quantile(x, 4, 5) / C, "QTLD": quantile(x, 1, 5) / C,
        "RANK": ((x < C).sum() + ((x == C).sum() + 1) / L(2)) / d,
        "RSV": (C - lo.min()) / (hi.max() - lo.min() + EPS),
        "IMAX": L(int(np.argmax(hi)) + 1) / d, "IMIN": L(int(np.argmin(lo)) + 1) / d,
        "IMXD": L(int(np.argmax(hi)) - int(np.argmin(lo))) / d,
        "CORR": correlation(x, np.log(vol + 1)),
        "CORD": correlation(x / before, np.log(grown + 1)),
        "CNTP": (rises > 0).sum() / L(d), "CNTN": (rises < 0).sum() / L(d),
        "CNTD": L(int((rises > 0).sum()) - int((rises < 0).sum())) / d,
        "VMA": vol.mean() / (V + EPS), "VSTD": std(vol) / (V + EPS),
        "WVMA": std(moved) / (moved.mean() + EPS),
    }  # fmt: skip
    for name, y in (("SUM", rises), ("VSUM", v_rises)):
        gain, loss = np.maximum(y, 0).sum(), np.maximum(-y, 0).sum()
        whole = gain + loss + EPS
        found |= {
            f"{name}P": gain / whole,
            f"{name}N": loss / whole,
            f"{name}D": (gain - loss) / whole,
        }
    return found
