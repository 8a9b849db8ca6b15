"""The order in which windows come: pure functions of settings, epoch and what a position left.

| module | |
|---|---|
| `settings` | what decides an order, as a value |
| `selection` | which windows take part |
| `weights` | how often they are to come |
| `epoch` | the order of one epoch |
| `drawn` | the order of one epoch whose windows are drawn by weights |
| `permutation` | permutations that stay the same for ever |
| `dealing` | blocks dealt to ranks, and the positions that come of it |
| `quality` | how well an order is shuffled |
"""

from grandbatch.order.dealing import Deal, Share, deal, epoch_start
from grandbatch.order.drawn import DrawnOrder, epoch_order
from grandbatch.order.epoch import EpochOrder, Order
from grandbatch.order.permutation import permutation, stream_key
from grandbatch.order.quality import default_shuffle_chunks, shuffle_vif
from grandbatch.order.selection import Selection
from grandbatch.order.settings import OrderSettings
from grandbatch.order.weights import WeightedSelection

__all__ = [
    "Deal",
    "DrawnOrder",
    "EpochOrder",
    "Order",
    "OrderSettings",
    "Selection",
    "Share",
    "WeightedSelection",
    "deal",
    "default_shuffle_chunks",
    "epoch_order",
    "epoch_start",
    "permutation",
    "shuffle_vif",
    "stream_key",
]
