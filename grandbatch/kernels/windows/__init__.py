"""Windowed sums, spreads, regressions, extremes and ranks of any length.

| module | |
|---|---|
| `plans` | how windows are merged of smaller ones |
| `averages` | sums and averages, exponential ones too |
| `merging` | what is in a window, merged of what is in its parts, for 8 bars at once |
| `moments` | spreads, regressions and correlations |
| `order` | extremes, ranks and quantiles |

A window of 20 bars is 5 of 4, and 4 bars are merged of single ones: each level is kept for every
bar, so a bar costs one merge a level and not one addition a lag, and the order of additions is the
window's own: no bits depend on where a run or a block begins. What is merged are means and
deviations (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
variances, 1979), so nothing cancels, and a flat window has exactly no spread. An exponential
average doubles too: over 2 m bars it is that over m, and (1 - alpha)**m of that over the m before.

All arrays are contiguous and equally long. Of outputs the items before the first whole window are
left as they are.
"""
